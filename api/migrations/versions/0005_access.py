"""Who may see what: row-level security for members, operators and organisations."""

revision = "0005_access"
down_revision = "0004_api"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
