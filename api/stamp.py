"""The environment written into the database: a sandbox never opens production's books, nor the other way round.

Nor are books opened that came from another cluster, until migrating them has begun a new era (`ledger.horizon`).
"""

from sqlalchemy import text

from api.settings import Environment, Settings, UnsafeSettings
from ledger.database import Tx
from ledger.horizon import era_is_here


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


def _compare(tx: Tx, environment: Environment) -> None:
    found = tx.execute(text("select environment from api.stamp")).scalar_one_or_none()
    if found is None:
        raise UnsafeSettings("the database isn't stamped with an environment yet: run `mizan migrate`")
    if found != environment.value:
        raise UnsafeSettings(f"MIZAN_ENVIRONMENT is {environment.value}, but the database belongs to {found}")
