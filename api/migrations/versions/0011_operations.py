"""Rotation of the master key, and what operations watch."""

from alembic import op

revision = "0011_operations"
down_revision = "0010_audit"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create what rotation and readiness keep in the database."""
    op.execute("""
        -- Each master key that was ever current: a canary that it must open. The key itself is never here.
        CREATE TABLE products.master_key (
            id text PRIMARY KEY CHECK (id ~ '^[a-z0-9-]{1,32}$'),
            canary bytea NOT NULL,
            first_used_at timestamptz NOT NULL
        );
        -- The secret that all blind indexes are computed under, sealed by a master key: one row, and it never changes.
        CREATE TABLE products.index_root (
            "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
            sealed bytea NOT NULL
        );
        GRANT SELECT, INSERT ON products.master_key, products.index_root TO mizan_api, mizan_worker;

        -- The oldest program that still works on this schema. A migration that breaks older programs sets it to itself.
        ALTER TABLE api.stamp ADD COLUMN compatible_from text NOT NULL DEFAULT '0011_operations';
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
