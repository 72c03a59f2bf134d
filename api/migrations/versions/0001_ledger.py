"""The tables of schema `ledger`."""

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the part that owns the schema."""
