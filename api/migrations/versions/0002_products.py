"""The tables of schema `products`."""

revision = "0002_products"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Filled by the part that owns the schema."""
