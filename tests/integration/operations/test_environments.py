"""A sandbox and a production never touch: not by their secrets, not by their keys, not by their databases."""

import asyncio
import base64
from typing import Any

import pytest
from pydantic import SecretStr

from api.app import create_app
from api.settings import SANDBOX_PREFIX, Environment, Settings, UnsafeSettings
from tests.conftest import Databases

MASTER = base64.b64encode(bytes(range(60, 92))).decode()
SEAL = base64.b64encode(bytes(range(92, 124))).decode()


def production(settings: Settings, **changes: Any) -> Settings:
    """This test's servers as somebody would configure a production on them."""
    return settings.model_copy(
        update={
            "environment": Environment.PRODUCTION,
            "public_url": "https://mizan.example",
            "master_key": SecretStr("mzn_live_" + MASTER),
            "seal_key": SecretStr("mzn_live_" + SEAL),
            **changes,
        }
    )


def start(settings: Settings) -> None:
    """Start an API process's application, and end it."""
    app = create_app(settings, publish=lambda: None)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())


def test_a_production_does_not_start_on_a_sandboxs_database(settings: Settings, databases: Databases) -> None:
    with pytest.raises(UnsafeSettings, match="the database belongs to sandbox"):
        start(production(settings))
    with databases.owner.begin() as tx:
        tx.exec_driver_sql("UPDATE api.stamp SET environment = 'production'")
    start(production(settings))
    with pytest.raises(UnsafeSettings, match="the database belongs to production"):
        start(settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"master_key": SecretStr(SANDBOX_PREFIX + MASTER)}, "MIZAN_MASTER_KEY is a sandbox secret"),
        ({"seal_key": SecretStr(SANDBOX_PREFIX + SEAL)}, "MIZAN_SEAL_KEY is a sandbox secret"),
        (
            {
                "master_keys_retired": SecretStr(
                    SANDBOX_PREFIX + base64.b64encode(bytes(range(1, 33))).decode()
                )
            },
            "MIZAN_MASTER_KEY is a sandbox secret",
        ),
        ({"master_keys_retired": SecretStr(SEAL)}, "the same key"),
        ({"master_keys_retired": SecretStr(base64.b64encode(b"k" * 32).decode())}, "is not random"),
        ({"master_key": SecretStr(base64.b64encode(bytes(32)).decode())}, "is not random"),
        ({"master_key_command": "false", "master_key": None}, "MIZAN_MASTER_KEY_COMMAND ended with 1"),
        ({"public_url": "http://mizan.example"}, "must be https://"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_production_does_not_start_on_what_is_a_sandboxs_or_a_default(
    settings: Settings, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsafeSettings, match=said):
        start(production(settings, **changes))


def test_another_deployments_key_seals_nothing_here(settings: Settings, databases: Databases) -> None:
    start(settings)
    other = settings.model_copy(update={"master_key": SecretStr(SANDBOX_PREFIX + MASTER)})
    with pytest.raises(UnsafeSettings, match="MIZAN_MASTER_KEY is not the key of this database"):
        start(other)
    with databases.owner.begin() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM products.master_key").scalar_one() == 1
