"""The registry's depth: documents, verification, consent by purpose, dependants, beneficiaries.

Revision 0007; follows 0006_tokens. Grants and row-level security stand beside the tables they guard.
"""

from alembic import op

revision = "0007_registry"
down_revision = "0006_tokens"
branch_labels = None
depends_on = None

# A row is visible to the partner that the request speaks for, or to staff. Unset means nobody.
OWN_ROWS = """(partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) = 'staff')"""

_NARROW = "nullif(current_setting('mizan.{name}', true), '') IS NULL"
# What is left to a request for one member or for some programmes, as in 0005_access.
NARROWED = f"""({_NARROW.format(name="member")} AND {_NARROW.format(name="programmes")}
    OR EXISTS (SELECT FROM products.member_link l WHERE l.member_id = {{table}}.member_id))"""


def upgrade() -> None:
    """Deepen the registry."""
    _consents()
    _members()
    _identity()
    _people()
    # what members alone may do reaches them through a token that their partner's client carries
    op.execute("""
        UPDATE api.oauth_client SET scopes = scopes || '{export:read,erasure:write}'
        WHERE partner_id IS NOT NULL AND 'members:write' = ANY (scopes)
    """)
    for table in ("member_document", "member_verification", "dependant", "beneficiary"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own_rows ON products.{table} USING {OWN_ROWS};
            CREATE POLICY narrowed ON products.{table} AS RESTRICTIVE TO mizan_api
                USING {NARROWED.format(table=table)};
            -- encrypted, and auditors hold no key
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true);
            GRANT SELECT, INSERT ON products.{table} TO mizan_api, mizan_worker;
            GRANT UPDATE (ended_at) ON products.{table} TO mizan_api, mizan_worker;
            GRANT SELECT ON products.{table} TO mizan_auditor
        """)


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


def _members() -> None:
    op.execute("""
        ALTER TABLE products.member ADD given_name bytea, ADD family_name bytea;
        GRANT UPDATE (given_name, family_name, birth_date, sex, origin_country) ON products.member TO mizan_api;
        -- partners list their members behind the settled horizon
        ALTER TABLE products.member_link
            ADD era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            ADD xid xid8 NOT NULL DEFAULT pg_current_xact_id();
        CREATE INDEX member_link_horizon ON products.member_link (partner_id, era, xid, id)
    """)


def _identity() -> None:
    op.execute(f"""
        -- What a person can be known by. The type is plain, since rules may ask for it; the rest is the member's own.
        CREATE TABLE products.member_document (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            type text NOT NULL,
            country bytea NOT NULL,
            number bytea NOT NULL,
            expires_on bytea,
            number_index bytea,
            checked text NOT NULL CHECK (checked IN ('number', 'nothing')),
            recorded_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX member_document_member ON products.member_document (member_id);
        CREATE INDEX member_document_number ON products.member_document (partner_id, number_index)
            WHERE ended_at IS NULL;
        GRANT UPDATE (number_index) ON products.member_document TO mizan_worker;

        -- Who verified a member, how, and until when that holds. Added and ended, never overwritten.
        CREATE TABLE products.member_verification (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            level text NOT NULL CHECK (level IN ('phone', 'document', 'institution')),
            verified_by text NOT NULL,
            evidence bytea,
            document_id uuid REFERENCES products.member_document,
            verified_at timestamptz NOT NULL,
            valid_until date,
            recorded_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX member_verification_member ON products.member_verification (member_id);

        -- The one index that is the same for every partner: by it managers find people who are registered twice. Partners'
        -- requests add to it and can't read it, so that what one partner registers tells another nothing.
        CREATE TABLE products.identity_index (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            kind text NOT NULL CHECK (kind IN ('phone', 'document')),
            source_id uuid NOT NULL,
            digest bytea NOT NULL,
            recorded_at timestamptz NOT NULL
        );
        CREATE INDEX identity_index_digest ON products.identity_index (digest);
        CREATE INDEX identity_index_member ON products.identity_index (member_id);
        ALTER TABLE products.identity_index ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.identity_index USING {OWN_ROWS};
        GRANT INSERT ON products.identity_index TO mizan_api;
        GRANT SELECT, INSERT, DELETE ON products.identity_index TO mizan_worker
    """)


def _people() -> None:
    op.execute("""
        CREATE TABLE products.dependant (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            relation bytea NOT NULL,
            given_name bytea NOT NULL,
            family_name bytea,
            birth_date bytea,
            sex bytea,
            residence_country bytea,
            added_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX dependant_member ON products.dependant (member_id);

        -- Those of a member that are not ended have shares of 10,000 basis points together: they are replaced as a set.
        CREATE TABLE products.beneficiary (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            relation bytea NOT NULL,
            given_name bytea NOT NULL,
            family_name bytea,
            phone bytea,
            share_basis_points integer NOT NULL CHECK (share_basis_points BETWEEN 1 AND 10000),
            added_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX beneficiary_member ON products.beneficiary (member_id)
    """)
