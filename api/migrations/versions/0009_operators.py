"""Operators: persons with roles, their second factors and sessions."""

from alembic import op

revision = "0009_operators"
down_revision = "0008_proofs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of operators. Only the worker's role reads them, and auditors who there is."""
    _operators()
    _proofs()
    _sessions()
    _openid_connect()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _operators() -> None:
    op.execute("""
        -- A person who works in the back office. `email` is casefolded. `founder` is the place of one of the two
        -- administrators whom the command line makes: the constraint keeps it at two, whoever races.
        CREATE TABLE api.operator (
            id uuid PRIMARY KEY,
            email text NOT NULL UNIQUE,
            name text NOT NULL,
            log_in text NOT NULL CHECK (log_in IN ('password', 'openid')),
            organisation_id uuid REFERENCES products.partner,
            founder smallint UNIQUE CHECK (founder IN (1, 2)),
            state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
            created_at timestamptz NOT NULL
        );
        CREATE TABLE api.operator_role (
            operator_id uuid NOT NULL REFERENCES api.operator,
            role text NOT NULL CHECK (role IN ('manager', 'administrator', 'caseworker', 'auditor')),
            programme_id uuid REFERENCES products.programme,
            UNIQUE NULLS NOT DISTINCT (operator_id, role, programme_id)
        );
        GRANT SELECT ON api.operator, api.operator_role TO mizan_auditor;
        GRANT SELECT, INSERT ON api.operator TO mizan_worker;
        GRANT UPDATE (name, organisation_id, state) ON api.operator TO mizan_worker;
        GRANT SELECT, INSERT, DELETE ON api.operator_role TO mizan_worker
    """)


def _proofs() -> None:
    op.execute("""
        -- `totp_step` is the last 30-second step whose code was taken: a step counts once, and none before it.
        -- `totp_next_sealed` is the secret that replaces it once a code of it was given.
        CREATE TABLE api.operator_credential (
            operator_id uuid PRIMARY KEY REFERENCES api.operator,
            password_hash text,
            totp_sealed bytea NOT NULL,
            totp_step bigint NOT NULL,
            totp_next_sealed bytea,
            totp_next_until timestamptz,
            changed_at timestamptz NOT NULL
        );
        CREATE TABLE api.operator_recovery_code (
            operator_id uuid NOT NULL REFERENCES api.operator,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            used_at timestamptz,
            PRIMARY KEY (operator_id, digest)
        );
        -- A one-time link with which a person sets the password and the second factor. Where two administrators made
        -- it, `code_digest` is of a code that the one who prepared it holds, and the link goes to the other.
        CREATE TABLE api.operator_link (
            id uuid PRIMARY KEY,
            operator_id uuid NOT NULL REFERENCES api.operator,
            digest bytea UNIQUE CHECK (length(digest) = 32),
            code_digest bytea CHECK (length(code_digest) = 32),
            prepared_by text NOT NULL,
            totp_sealed bytea,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            used_at timestamptz
        );
        CREATE INDEX operator_link_operator ON api.operator_link (operator_id);
        -- Tries at a log-in, counted by digest of account, of account at an address, or of address.
        CREATE TABLE api.log_in_tries (
            subject bytea PRIMARY KEY CHECK (length(subject) = 32),
            tries integer NOT NULL,
            tried_at timestamptz NOT NULL,
            closed_until timestamptz NOT NULL
        );
        CREATE INDEX log_in_tries_age ON api.log_in_tries (tried_at);
        GRANT SELECT, INSERT, UPDATE ON api.operator_credential, api.operator_link TO mizan_worker;
        GRANT SELECT, INSERT, DELETE ON api.operator_recovery_code TO mizan_worker;
        GRANT UPDATE (used_at) ON api.operator_recovery_code TO mizan_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON api.log_in_tries TO mizan_worker
    """)


def _sessions() -> None:
    op.execute("""
        CREATE TABLE api.operator_session (
            id uuid PRIMARY KEY,
            operator_id uuid NOT NULL REFERENCES api.operator,
            digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
            address text,
            created_at timestamptz NOT NULL,
            seen_at timestamptz NOT NULL,
            idle_seconds integer NOT NULL CHECK (idle_seconds > 0),
            expires_at timestamptz NOT NULL,
            confirmed_at timestamptz,
            ended_at timestamptz
        );
        CREATE INDEX operator_session_operator ON api.operator_session (operator_id, created_at);
        GRANT SELECT, INSERT, DELETE ON api.operator_session TO mizan_worker;
        GRANT UPDATE (seen_at, confirmed_at, ended_at) ON api.operator_session TO mizan_worker;

        -- Whoever has a session's token may open it, and that is all that a request of mizan_api sees of operators.
        CREATE FUNCTION api.opened_session(token_digest bytea, at timestamptz)
            RETURNS TABLE (id uuid, operator_id uuid, seen_at timestamptz, confirmed_at timestamptz,
                           created_at timestamptz, expires_at timestamptz, name text, organisation_id uuid, held text[])
            LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            SELECT s.id, s.operator_id, s.seen_at, s.confirmed_at, s.created_at, s.expires_at, o.name, o.organisation_id,
                ARRAY(SELECT r.role || ':' || coalesce(r.programme_id::text, '') FROM api.operator_role r
                      WHERE r.operator_id = o.id)
            FROM api.operator_session s JOIN api.operator o ON o.id = s.operator_id AND o.state = 'active'
            WHERE s.digest = token_digest AND s.ended_at IS NULL AND s.expires_at > at
              AND s.seen_at + make_interval(secs => s.idle_seconds) > at;
        END $$;
        -- That it is in use; left out when another request is just noting it.
        CREATE FUNCTION api.note_session(token_digest bytea, at timestamptz) RETURNS void
            LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            UPDATE api.operator_session SET seen_at = note_session.at WHERE id = (
                SELECT id FROM api.operator_session
                WHERE digest = token_digest AND ended_at IS NULL AND seen_at < note_session.at
                FOR NO KEY UPDATE SKIP LOCKED)
        $$;
        REVOKE ALL ON FUNCTION api.opened_session, api.note_session FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION api.opened_session, api.note_session TO mizan_api, mizan_worker
    """)


def _openid_connect() -> None:
    op.execute("""
        -- Who a provider's subject is. Linked once, by the verified e-mail of an invited operator.
        CREATE TABLE api.operator_identity (
            issuer text NOT NULL,
            subject text NOT NULL,
            operator_id uuid NOT NULL UNIQUE REFERENCES api.operator,
            linked_at timestamptz NOT NULL,
            PRIMARY KEY (issuer, subject)
        );
        -- One log-in under way at the provider: found by the digest of its state, bound to the browser that began it.
        CREATE TABLE api.openid_log_in (
            id uuid PRIMARY KEY,
            state_digest bytea NOT NULL UNIQUE CHECK (length(state_digest) = 32),
            browser_digest bytea NOT NULL CHECK (length(browser_digest) = 32),
            nonce_digest bytea NOT NULL CHECK (length(nonce_digest) = 32),
            verifier_sealed bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            returned_at timestamptz,
            subject text,
            operator_id uuid REFERENCES api.operator,
            ended_at timestamptz
        );
        CREATE INDEX openid_log_in_age ON api.openid_log_in (created_at);
        GRANT SELECT, INSERT ON api.operator_identity TO mizan_worker;
        GRANT SELECT, INSERT, DELETE ON api.openid_log_in TO mizan_worker;
        GRANT UPDATE (returned_at, subject, operator_id, ended_at) ON api.openid_log_in TO mizan_worker
    """)
