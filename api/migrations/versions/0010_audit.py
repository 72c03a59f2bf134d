"""The audit log, sealed with the books, and two-person approval."""

from alembic import op

revision = "0010_audit"
down_revision = "0009_operators"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the log, give seals room for it, and create the requests that wait for a second person."""
    _audit_log()
    _seals()
    _value_keys()
    _approvals()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _audit_log() -> None:
    op.execute("""
        -- Who did what. The values before and after are sealed under keys that are destroyed one day; the leaf covers
        -- their digests.
        CREATE TABLE ledger.audit_entry (
            id uuid CONSTRAINT audit_entry_pkey PRIMARY KEY,
            actor_kind text NOT NULL CONSTRAINT audit_entry_actor_kind_check
                CHECK (actor_kind IN ('operator', 'staff', 'partner', 'member', 'cli', 'system')),
            actor text NOT NULL,
            action text NOT NULL,
            object text NOT NULL,
            outcome text NOT NULL CONSTRAINT audit_entry_outcome_check CHECK (outcome IN ('done', 'refused')),
            address text,
            request_id text,
            programme_id uuid,
            before bytea,
            after bytea,
            before_digest bytea,
            after_digest bytea,
            detail jsonb,
            recorded_at timestamptz NOT NULL,
            salt bytea NOT NULL CONSTRAINT audit_entry_salt_check CHECK (octet_length(salt) = 16),
            leaf bytea NOT NULL CONSTRAINT audit_entry_leaf_check CHECK (octet_length(leaf) = 32),
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            CONSTRAINT audit_entry_before_check CHECK ((before IS NULL) = (before_digest IS NULL)),
            CONSTRAINT audit_entry_after_check CHECK ((after IS NULL) = (after_digest IS NULL))
        );
        CREATE INDEX audit_entry_era_xid_id_idx ON ledger.audit_entry (era, xid, id);
        CREATE INDEX audit_entry_actor_idx ON ledger.audit_entry (actor, era, xid, id);
        CREATE INDEX audit_entry_object_idx ON ledger.audit_entry (object, era, xid, id);
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.audit_entry
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        -- Whoever acts writes; staff read, limited to their programmes where they are. `era` and `xid` are the defaults.
        ALTER TABLE ledger.audit_entry ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON ledger.audit_entry TO mizan_api
            USING (nullif(current_setting('mizan.access', true), '') = 'staff'
                   AND (nullif(current_setting('mizan.programmes', true), '') IS NULL
                        OR programme_id = ANY (string_to_array(current_setting('mizan.programmes', true), ',')::uuid[])))
            WITH CHECK (true);
        CREATE POLICY auditor ON ledger.audit_entry FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY sealer ON ledger.audit_entry FOR SELECT TO mizan_sealer USING (true);
        GRANT SELECT ON ledger.audit_entry TO mizan_api, mizan_worker, mizan_sealer, mizan_auditor;
        GRANT INSERT (id, actor_kind, actor, action, object, outcome, address, request_id, programme_id, before, after,
                      before_digest, after_digest, detail, recorded_at, salt, leaf)
            ON ledger.audit_entry TO mizan_api, mizan_worker
    """)


def _seals() -> None:
    op.execute("""
        -- Null in the seals made before there was a log: their heads are hashed in the first form for ever.
        ALTER TABLE ledger.seal ADD COLUMN audit_root bytea, ADD COLUMN audit_entries bigint,
            ADD COLUMN total_audit_entries bigint
    """)


def _value_keys() -> None:
    op.execute("""
        -- One day's key of audit values and of what is asked for in requests, wrapped by the keyring until destroyed.
        CREATE TABLE api.audit_key (
            id uuid PRIMARY KEY,
            wrapped bytea,
            created_at timestamptz NOT NULL,
            destroyed_at timestamptz,
            CONSTRAINT audit_key_wrapped_check CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
        );
        CREATE INDEX audit_key_newest ON api.audit_key (created_at);
        GRANT SELECT, INSERT ON api.audit_key TO mizan_api, mizan_worker;
        GRANT UPDATE (wrapped, destroyed_at) ON api.audit_key TO mizan_worker
    """)


def _approvals() -> None:
    op.execute("""
        -- What one person asked for and another has to approve. It is decided once, and by somebody else.
        CREATE TABLE api.approval_request (
            id uuid PRIMARY KEY,
            kind text NOT NULL,
            object text NOT NULL,
            programme_id uuid,
            sealed_payload bytea NOT NULL,
            payload_digest bytea NOT NULL CHECK (octet_length(payload_digest) = 32),
            remark text NOT NULL,
            requested_by text NOT NULL,
            requested_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            state text NOT NULL DEFAULT 'requested'
                CHECK (state IN ('requested', 'approved', 'refused', 'expired', 'withdrawn')),
            decided_by text,
            decided_at timestamptz,
            decision_remark text,
            result jsonb,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            CHECK ((state = 'requested') = (decided_at IS NULL)),
            CHECK (state NOT IN ('approved', 'refused') OR decided_by IS NOT NULL),
            CHECK (state <> 'approved' OR decided_by <> requested_by)
        );
        CREATE INDEX approval_request_horizon ON api.approval_request (era, xid, id);
        CREATE UNIQUE INDEX approval_request_open ON api.approval_request (kind, object) WHERE state = 'requested';
        CREATE INDEX approval_request_expiry ON api.approval_request (expires_at) WHERE state = 'requested';
        CREATE FUNCTION api.refuse_second_decision() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF TG_OP <> 'UPDATE' OR old.state <> 'requested' OR new.state = 'requested' THEN
                RAISE EXCEPTION 'a request is decided once, and stays' USING errcode = 'MZ002';
            END IF;
            RETURN new;
        END
        $$;
        CREATE TRIGGER decided_once BEFORE UPDATE ON api.approval_request
            FOR EACH ROW EXECUTE FUNCTION api.refuse_second_decision();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON api.approval_request
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        ALTER TABLE api.approval_request ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON api.approval_request TO mizan_api
            USING (nullif(current_setting('mizan.access', true), '') = 'staff'
                   AND (nullif(current_setting('mizan.programmes', true), '') IS NULL
                        OR programme_id = ANY (string_to_array(current_setting('mizan.programmes', true), ',')::uuid[])));
        CREATE POLICY auditor ON api.approval_request FOR SELECT TO mizan_auditor USING (true);
        GRANT SELECT ON api.approval_request TO mizan_api, mizan_worker, mizan_auditor;
        GRANT INSERT (id, kind, object, programme_id, sealed_payload, payload_digest, remark, requested_by, requested_at,
                      expires_at) ON api.approval_request TO mizan_worker;
        GRANT UPDATE (state, decided_by, decided_at, decision_remark, result) ON api.approval_request TO mizan_worker
    """)
