"""The environment written into the database: a sandbox never opens production's books, nor the other way round.

Nor are books opened that came from another cluster, until migrating them has begun a new era (`ledger.horizon`).
"""

from datetime import datetime

from sqlalchemy import text

from api.settings import Environment, Settings, UnsafeSettings
from ledger.database import Tx
from ledger.horizon import era_is_here
from products.keyring import Keyring, KeyringError
from products.safekeeping import prepare


def stamp(tx: Tx, environment: Environment) -> None:
    """Write the environment into a database that has none yet, as role mizan_owner; `mizan migrate` calls it.

    Raises:
        UnsafeSettings: the database belongs to another environment.
    """
    tx.execute(
        text('insert into api.stamp (environment) values (:environment) on conflict ("only") do nothing'),
        {"environment": environment.value},
    )
    _compare(tx, environment)


def require_stamp(tx: Tx, settings: Settings) -> None:
    """Refuse to start on a database of another environment; every process calls it once, as its own role.

    Raises:
        UnsafeSettings: the stamp is missing or says something else, or the books were restored and not migrated since.
    """
    if settings.environment is None:
        raise UnsafeSettings("MIZAN_ENVIRONMENT must say sandbox or production")
    _compare(tx, settings.environment)
    if not era_is_here(tx):
        raise UnsafeSettings("the books were restored from another cluster: run `mizan migrate`")


def require_keys(tx: Tx, keyring: Keyring, now: datetime) -> None:
    """Refuse to start with a master key that is not this database's, before anything is sealed under it.

    Raises:
        UnsafeSettings: what is here is sealed under a master key that the settings don't give.
    """
    try:
        root = prepare(tx, keyring, now)
    except KeyringError as error:
        raise UnsafeSettings(
            f"MIZAN_MASTER_KEY is not the key of this database ({error.detail}): give that one, or add it to"
            " MIZAN_MASTER_KEYS_RETIRED"
        ) from None
    keyring.index_from(lambda: root)


def _compare(tx: Tx, environment: Environment) -> None:
    found = tx.execute(text("select environment from api.stamp")).scalar_one_or_none()
    if found is None:
        raise UnsafeSettings("the database isn't stamped with an environment yet: run `mizan migrate`")
    if found != environment.value:
        raise UnsafeSettings(f"MIZAN_ENVIRONMENT is {environment.value}, but the database belongs to {found}")
