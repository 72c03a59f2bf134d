"""The tables of schema `integrations`."""

revision = "0003_integrations"
down_revision = "0002_products"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the part that owns the schema."""
