"""The registry's depth: documents, verification, consent by purpose, dependants, beneficiaries.

Revision 0007; follows 0006_tokens. Grants and row-level security stand beside the tables they guard.
"""

from alembic import op

revision = "0007_registry"
down_revision = "0006_tokens"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Deepen the registry."""
    _consents()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _consents() -> None:
    op.execute("""
        -- contributions: a partner's word is enough. Whatever lets somebody see more needs the member's proof.
        ALTER TABLE products.consent
            ADD purpose text NOT NULL DEFAULT 'contributions'
                CHECK (purpose IN ('contributions', 'whole_view', 'casework')),
            ADD proof uuid,
            ADD cooling_off_until timestamptz,
            ADD CONSTRAINT consent_proven CHECK (purpose = 'contributions' OR proof IS NOT NULL);
        DROP INDEX products.consent_in_force;
        CREATE UNIQUE INDEX consent_in_force ON products.consent (member_id, partner_id, purpose)
            WHERE withdrawn_at IS NULL
    """)
