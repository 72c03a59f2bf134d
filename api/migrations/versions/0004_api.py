"""The tables of schema `api`: OAuth clients and their secrets, signing keys, answers kept for idempotency keys."""

from alembic import op

revision = "0004_api"
down_revision = "0003_integrations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create schema `api` and everything in it."""
    op.execute("CREATE SCHEMA IF NOT EXISTS api")
    op.execute("GRANT USAGE ON SCHEMA api TO mizan_api, mizan_worker, mizan_auditor")
    _clients()
    _signing_keys()
    _idempotent_answers()
    _stamp()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("a baseline has no way down: restore a backup instead")


def _clients() -> None:
    op.execute("""
        -- A partner's client speaks for its partner and sees what came through it; a staff client has roles instead.
        CREATE TABLE api.oauth_client (
            id uuid PRIMARY KEY,
            name text NOT NULL,
            partner_id uuid REFERENCES products.partner,
            roles text[] NOT NULL DEFAULT '{}',
            scopes text[] NOT NULL,
            state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
            created_at timestamptz NOT NULL,
            CHECK ((partner_id IS NULL) = (cardinality(roles) > 0))
        );
        -- Several may be valid at once, so that a secret is changed without an outage.
        CREATE TABLE api.client_secret (
            id uuid PRIMARY KEY,
            client_id uuid NOT NULL REFERENCES api.oauth_client,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            created_at timestamptz NOT NULL,
            expires_at timestamptz
        );
        CREATE INDEX client_secret_client ON api.client_secret (client_id);
        -- Before it has proved itself, a request sees the client that it says it is, and no other.
        ALTER TABLE api.oauth_client ENABLE ROW LEVEL SECURITY;
        ALTER TABLE api.client_secret ENABLE ROW LEVEL SECURITY;
        CREATE POLICY itself ON api.oauth_client
            USING (id = nullif(current_setting('mizan.client', true), '')::uuid);
        CREATE POLICY itself ON api.client_secret
            USING (client_id = nullif(current_setting('mizan.client', true), '')::uuid);
        GRANT SELECT ON api.oauth_client, api.client_secret TO mizan_api;
        GRANT SELECT, INSERT, UPDATE ON api.oauth_client, api.client_secret TO mizan_worker
    """)


def _signing_keys() -> None:
    op.execute("""
        -- The keys that sign access tokens; the private part is sealed by the master key.
        CREATE TABLE api.signing_key (
            kid text PRIMARY KEY,
            public_key jsonb NOT NULL,
            sealed_private_key bytea NOT NULL,
            signs_from timestamptz NOT NULL,
            verifies_until timestamptz,
            created_at timestamptz NOT NULL
        );
        GRANT SELECT, INSERT ON api.signing_key TO mizan_api, mizan_worker;
        GRANT UPDATE (verifies_until) ON api.signing_key TO mizan_api, mizan_worker
    """)


def _idempotent_answers() -> None:
    op.execute("""
        -- The first answer to an Idempotency-Key, sealed: it may hold personal data. Nothing readable is kept of the key.
        CREATE TABLE api.idempotent_answer (
            client_id uuid NOT NULL,
            subject text NOT NULL,
            route text NOT NULL,
            key_digest bytea NOT NULL,
            fingerprint bytea NOT NULL,
            status smallint NOT NULL,
            sealed_body bytea NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (client_id, subject, route, key_digest)
        );
        CREATE INDEX idempotent_answer_age ON api.idempotent_answer (created_at);
        GRANT SELECT, INSERT ON api.idempotent_answer TO mizan_api, mizan_worker;
        GRANT DELETE ON api.idempotent_answer TO mizan_worker
    """)


def _stamp() -> None:
    op.execute("""
        -- Which environment this database belongs to: one row, written by `mizan migrate`, compared at every start.
        CREATE TABLE api.stamp (
            "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
            environment text NOT NULL CHECK (environment IN ('sandbox', 'production')),
            stamped_at timestamptz NOT NULL DEFAULT now()
        );
        GRANT USAGE ON SCHEMA api TO mizan_sealer;
        GRANT SELECT ON api.stamp TO mizan_api, mizan_worker, mizan_sealer, mizan_auditor
    """)
