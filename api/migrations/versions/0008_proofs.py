"""The member's proof: devices, one-time codes, waiting changes, payees, linked members."""

revision = "0008_proofs"
down_revision = "0007_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
