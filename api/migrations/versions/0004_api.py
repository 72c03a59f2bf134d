"""The tables of schema `api`."""

revision = "0004_api"
down_revision = "0003_integrations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the part that owns the schema."""
