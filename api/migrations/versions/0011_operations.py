"""Rotation of the master key, and what operations watch."""

revision = "0011_operations"
down_revision = "0010_audit"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
