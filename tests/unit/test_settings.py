"""What an operator may decide, and the mixes that are refused before anything starts."""

import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.safety import require_safe
from api.settings import Environment, Settings, UnsafeSettings, load

MASTER = base64.b64encode(bytes(range(32))).decode()
SEAL = base64.b64encode(bytes(range(32, 64))).decode()
SERVERS = {
    "database_url": "postgresql://mizan_api:p@db/mizan",
    "database_url_worker": "postgresql://mizan_worker:p@db/mizan",
    "database_url_sealer": "postgresql://mizan_sealer:p@db/mizan",
    "database_url_auditor": "postgresql://mizan_auditor:p@db/mizan",
    "redis_url": "redis://cache:6379/0",
}
PRODUCTION = {
    **SERVERS,
    "environment": "production",
    "master_key": MASTER,
    "seal_key": SEAL,
    "public_url": "https://mizan.example",
}


def settings(**values: object) -> Settings:
    return load(_env_file=None, **values)


def test_nothing_said_means_embedded_servers_in_the_current_folder() -> None:
    given = settings()
    assert given.embedded
    assert given.environment is None
    assert given.data_dir == Path.cwd() / ".mizan"


def test_the_environment_and_the_env_file_are_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text("MIZAN_PORT=8001\nMIZAN_HOST=0.0.0.0\nOTHER=1\n", encoding="utf-8")
    monkeypatch.setenv("MIZAN_PORT", "8002")
    given = load(_env_file=file)
    assert (given.port, given.host) == (8002, "0.0.0.0")  # noqa: S104  a value, nothing listens


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1  # type: ignore[misc]  # the point of the test


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_production_that_lacks_nothing_is_safe() -> None:
    require_safe(settings(**PRODUCTION))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"master_key": None}, "MIZAN_MASTER_KEY is missing"),
        ({"seal_key": None}, "MIZAN_SEAL_KEY is missing"),
        ({"master_key": "mzn_test_" + MASTER}, "sandbox secret"),
        ({"master_key": base64.b64encode(b"x" * 32).decode()}, "not random"),
        ({"master_key": base64.b64encode(b"x" * 16).decode()}, "holds 16 bytes"),
        ({"master_key": "not base64!"}, "not base64"),
        ({"seal_key": MASTER}, "the same key"),
        ({"public_url": "http://mizan.example"}, "https://"),
        ({"environment": None}, "MIZAN_ENVIRONMENT must say"),
        ({"event_loopback": True}, "MIZAN_EVENT_LOOPBACK lets partners call this machine"),
        ({"database_url_worker": None}, "MIZAN_DATABASE_URL_WORKER is missing"),
        ({"database_url_worker": "postgresql://mizan_api:p@db/mizan"}, "the same role"),
        ({"database_url": "postgresql://postgres:p@db/mizan"}, "superuser"),
        ({"database_url": "postgresql://mizan_owner:p@db/mizan"}, "owner"),
        (dict.fromkeys(SERVERS), "no server is configured"),
        ({"code_sender": "console"}, "production needs webhook"),
        ({"code_sender": "file", "code_file": "/codes"}, "production needs webhook"),
        ({"code_sender": "file"}, "needs MIZAN_CODE_FILE"),
        ({"code_sender": "webhook"}, "needs MIZAN_CODE_WEBHOOK_URL"),
        (
            {
                "code_sender": "webhook",
                "code_webhook_url": "http://sms.example",
                "code_webhook_secret": "whsec_x",
            },
            "MIZAN_CODE_WEBHOOK_URL must be https://",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unsafe_production_is_refused_and_says_why(change: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsafeSettings) as refused:
        require_safe(settings(**{**PRODUCTION, **change}))
    assert reason in refused.value.detail


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"redis_url": "redis://cache"}, "without MIZAN_DATABASE_URL"),
        ({"database_url": "postgresql://mizan_api@db/mizan"}, "without MIZAN_REDIS_URL"),
        ({"database_url_worker": "postgresql://mizan_worker@db/mizan"}, "without MIZAN_DATABASE_URL"),
        ({**SERVERS, "database_url": "mysql://x@db/mizan"}, "must begin with postgresql://"),
        ({**SERVERS, "database_url": "nonsense"}, "is not a database URL"),
        ({**SERVERS, "redis_url": "http://cache"}, "must begin with redis://"),
        ({"environment": "staging"}, "MIZAN_ENVIRONMENT"),
        ({"hook_body_bytes_max": -1}, "MIZAN_HOOK_BODY_BYTES_MAX"),
        ({"public_url": "https://mizan.example/"}, "MIZAN_PUBLIC_URL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_half_configured_or_malformed_settings_are_refused_and_say_why(
    values: dict[str, object], reason: str
) -> None:
    with pytest.raises(UnsafeSettings) as refused:
        settings(**values)
    assert reason in refused.value.detail


def test_no_refusal_and_no_rendering_shows_a_secret() -> None:
    secret = "s3cr3t-passw0rd"
    with pytest.raises(UnsafeSettings) as refused:
        settings(**{**SERVERS, "database_url": f"mysql://mizan_api:{secret}@db/mizan"})
    assert secret not in refused.value.detail
    assert refused.value.__cause__ is None
    good = settings(**{**PRODUCTION, "database_url": f"postgresql://mizan_api:{secret}@db/mizan"})
    assert secret not in f"{good!r} {good} {good.model_dump()}"
    assert MASTER not in f"{good!r} {good} {good.model_dump()}"


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    file.write_text(f"{MASTER}\n", encoding="ascii")
    given = settings(**{**PRODUCTION, "master_key": None, "master_key_file": file})
    require_safe(given)
    assert given.master_key_bytes == bytes(range(32))
    with pytest.raises(UnsafeSettings, match="can't be read"):
        require_safe(settings(**{**PRODUCTION, "master_key": None, "master_key_file": tmp_path / "absent"}))


def test_a_sandbox_on_configured_servers_may_use_sandbox_keys() -> None:
    given = settings(
        **SERVERS, environment="sandbox", master_key="mzn_test_" + MASTER, seal_key="mzn_test_" + SEAL
    )
    require_safe(given)
    assert given.environment is Environment.SANDBOX


def test_postgresql_urls_come_in_sqlalchemys_spelling_with_their_passwords() -> None:
    given = settings(**{**SERVERS, "database_url": "postgresql://mizan_api:a%2Fb@/mizan?host=/run/sockets"})
    assert given.database_url is not None
    assert (
        given.database_url.get_secret_value()
        == "postgresql+psycopg://mizan_api:a%2Fb@/mizan?host=%2Frun%2Fsockets"
    )


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://:p@cache:6379/1", "redis://:p@cache:6379/1"),
        ("unix://:p@/run/valkey.sock?db=3", "redis+socket://:p@/run/valkey.sock?virtual_host=3"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock?virtual_host=0"),
    ],
)
def test_the_queues_url_is_spelt_as_celery_wants_it(redis_url: str, broker_url: str) -> None:
    assert settings(**{**SERVERS, "redis_url": redis_url}).broker_url == broker_url


def test_settings_pass_unchanged_to_a_process_that_we_start(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(**PRODUCTION, port=8123, hook_gather_milliseconds=2.5)
    for name, value in given.variables().items():
        monkeypatch.setenv(name, value)
    assert settings() == given
