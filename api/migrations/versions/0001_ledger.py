"""The tables of schema `ledger`."""

from importlib.resources import files

from alembic import op

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the ledger's SQL files in the order of their names."""
    scripts = sorted(
        (f for f in files("ledger").joinpath("sql").iterdir() if f.name.endswith(".sql")), key=str
    )
    for script in scripts:
        op.get_bind().exec_driver_sql(script.read_text("utf-8"), execution_options={"no_parameters": True})


def downgrade() -> None:
    """Books are not unwritten."""
    raise NotImplementedError("the ledger has no way back: restore a backup")
