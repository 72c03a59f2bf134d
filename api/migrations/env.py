"""How Alembic reaches the database: by the connection that it is handed, or by the owner's configured URL."""

from alembic import context
from sqlalchemy import MetaData, create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from api.migrations.run import metadata, version_table
from api.settings import load, reveal


def _run(connection: Connection, tables: MetaData | None) -> None:
    context.configure(connection=connection, target_metadata=tables, include_schemas=True, **version_table())
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations run on a database; offline SQL isn't supported")

given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    # Applying migrations needs no models: they are history, the models are the present.
    _run(given, None)
else:
    engine = create_engine(reveal(load().database_url_owner, "MIZAN_DATABASE_URL_OWNER"), poolclass=NullPool)
    with engine.begin() as own:
        _run(own, metadata())
    engine.dispose()
