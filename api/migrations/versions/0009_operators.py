"""Operators: persons with roles, their second factors and sessions."""

revision = "0009_operators"
down_revision = "0008_proofs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
