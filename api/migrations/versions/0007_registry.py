"""The registry's depth: documents, verification, consent by purpose, dependants, beneficiaries."""

revision = "0007_registry"
down_revision = "0006_tokens"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
