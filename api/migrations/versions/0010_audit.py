"""The audit log, sealed with the books, and two-person approval."""

revision = "0010_audit"
down_revision = "0009_operators"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
