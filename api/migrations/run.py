"""Bringing a database to the newest schema, and telling where the models and the database disagree."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType

from api.settings import Settings, UnsafeSettings, reveal
from api.stamp import stamp
from ledger.database import Tx
from ledger.horizon import ensure_era
from ledger.models import Base

# Two processes that migrate at once: the second waits here, then finds nothing to do.
MIGRATION_LOCK = 0x4D495A414E
SCHEMAS = frozenset({"ledger", "products", "integrations", "api"})


def configuration() -> Config:
    """Alembic's configuration, wherever the current directory is."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def version_table() -> dict[str, Any]:
    """Where the applied revision is written down: the options that every context of Alembic's takes."""
    return {"version_table": "alembic_version"}


@cache
def newest() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(configuration()).get_current_head()


@cache
def known() -> frozenset[str]:
    """Every revision that this program knows."""
    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    return frozenset(script.revision for script in scripts)


Standing = Literal["ok", "ahead", "outdated", "incompatible"]


def standing(tx: Tx) -> Standing:
    """Whether this program works on the schema of a transaction's database; any role that may enter can ask.

    A newer schema than the program's is `ahead` and good to work on, so that a database is migrated while older programs
    still run, unless one of its newer migrations said that it breaks them (``api.stamp.compatible_from``): `incompatible`.
    """
    found = revision_of(tx)
    if found == newest():
        return "ok"
    if found is None or found in known():
        return "outdated"
    works_from = tx.exec_driver_sql("select compatible_from from api.stamp").scalar_one_or_none()
    return "ahead" if works_from in known() else "incompatible"


def revision_of(tx: Tx) -> str | None:
    """The revision that the database of a transaction is at; None for an empty one. Any role that may enter can ask."""
    return MigrationContext.configure(tx, opts=version_table()).get_current_revision()


def current(url: str) -> str | None:
    """The revision that a database is at; None for an empty one. Any role that may enter can ask."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    finally:
        engine.dispose()


def upgrade(owner_url: str, revision: str = "head") -> None:
    """Bring the database to `revision`, as role mizan_owner, in one transaction.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database can't be reached or refuses; nothing was changed.
    """
    engine = create_engine(owner_url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            # Every role asks whether it meets the schema that it was made for.
            connection.exec_driver_sql("grant select on alembic_version to public")
            if revision == "head":
                ensure_era(connection)  # books restored into another cluster begin a new era
    finally:
        engine.dispose()


def migrate(settings: Settings) -> None:
    """Bring the configured database to the newest schema and stamp it with the environment: `mizan migrate`.

    Raises:
        UnsafeSettings: the owner's URL is missing, or the database belongs to another environment.
        sqlalchemy.exc.SQLAlchemyError: the database can't be reached or refuses; nothing was changed.
    """
    if settings.environment is None:
        raise UnsafeSettings("MIZAN_ENVIRONMENT must say sandbox or production")
    url = reveal(settings.database_url_owner, "MIZAN_DATABASE_URL_OWNER")
    upgrade(url)
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            stamp(connection, settings.environment)
    finally:
        engine.dispose()


def metadata() -> MetaData:
    """The tables of every module called `models` or `tables`."""
    for name in sorted(SCHEMAS):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name.endswith((".models", ".tables")):
                importlib.import_module(module.name)
    return Base.metadata


def differences(owner_url: str) -> list[str]:
    """Where the models and the database's catalogue disagree about tables, columns, types and nullability, one line each.

    A table without a model isn't compared: what only SQL touches needs none. Indexes, grants, triggers and policies are
    compared with what is meant by tests of their own.
    """
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    expected = [
        (
            table.schema or "public",
            table.name,
            column.name,
            # A foreign key's column takes its type from a table that may have no model.
            None
            if isinstance(column.type, NullType)
            else column.type.compile(dialect).partition(" COLLATE")[0],
            bool(column.nullable),
        )
        for table in metadata().tables.values()
        for column in table.columns
    ]
    engine = create_engine(owner_url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            schemas, tables, columns, types, nullable = (list(part) for part in zip(*expected, strict=True))
            rows = connection.exec_driver_sql(_DIFFERENCES, (schemas, tables, columns, types, nullable)).all()
    finally:
        engine.dispose()
    return [f"{where}: {problem}" for where, problem in rows]


_DIFFERENCES = """
    with model as (
        select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bool[])
                      as item(schema, "table", "column", type, nullable)
    ), catalogue as (
        select n.nspname as schema, c.relname as "table", a.attname as "column", a.atttypid as type, not a.attnotnull as nullable
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        where a.attnum > 0 and not a.attisdropped and (n.nspname, c.relname) in (select schema, "table" from model)
    )
    select concat_ws('.', schema, "table", "column") as place,
           case when model.nullable is null then 'in the database, not in the model'
                when catalogue.type is null then 'in the model, not in the database'
                when to_regtype(model.type) <> catalogue.type
                    then format('%%s in the model, %%s in the database', model.type, format_type(catalogue.type, null))
                else format('may%%s be null in the model only', case when model.nullable then '' else ' not' end)
           end
    from model full join catalogue using (schema, "table", "column")
    where model.nullable is null or catalogue.type is null or to_regtype(model.type) <> catalogue.type or model.nullable <> catalogue.nullable
    order by place
"""
