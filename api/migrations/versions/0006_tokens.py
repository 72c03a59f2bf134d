"""What tokens need: clients' public keys, used assertions, revocations."""

revision = "0006_tokens"
down_revision = "0005_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
