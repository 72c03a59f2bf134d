"""The tables of schema `integrations`: webhook secrets, the keys of the inbox, deliveries and what became of them.

Revision 0003; follows 0002_products. Grants and row-level security stand beside the tables they guard.
"""

from alembic import op

revision = "0003_integrations"
down_revision = "0002_products"
branch_labels = None
depends_on = None

# A delivery, and the secret that signs it, is visible to its partner, to staff, and to the hook itself, which has to see
# what it has stored before to tell a repetition from a conflict. Unset means nobody.
OWN_ROWS = """(partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) in ('staff', 'hook'))"""


def upgrade() -> None:
    """Create schema `integrations` and everything in it."""
    op.execute("CREATE SCHEMA IF NOT EXISTS integrations")
    op.execute("GRANT USAGE ON SCHEMA integrations TO mizan_api, mizan_worker, mizan_auditor, mizan_sealer")
    _secrets()
    _inbox_keys()
    _deliveries()
    op.execute("GRANT SELECT ON ALL TABLES IN SCHEMA integrations TO mizan_auditor")
    op.execute("REVOKE SELECT ON integrations.webhook_secret, integrations.inbox_key FROM mizan_auditor")


def downgrade() -> None:
    """Refused: the inbox is append-only; restore a backup instead."""
    raise NotImplementedError("a baseline has no way down: restore a backup instead")


def _secrets() -> None:
    op.execute(f"""
        -- What partners sign with, sealed under the keyring's purpose 'webhook-secret'. Two may be valid at once.
        CREATE TABLE integrations.webhook_secret (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            sealed bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz
        );
        CREATE INDEX webhook_secret_partner ON integrations.webhook_secret (partner_id);
        ALTER TABLE integrations.webhook_secret ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON integrations.webhook_secret USING {OWN_ROWS};
        GRANT SELECT ON integrations.webhook_secret TO mizan_api;
        GRANT SELECT, INSERT, UPDATE (expires_at) ON integrations.webhook_secret TO mizan_worker
    """)


def _inbox_keys() -> None:
    op.execute("""
        -- Bodies rest under a key that is new each day. Destroying it makes them unreadable; their digests stay.
        CREATE TABLE integrations.inbox_key (
            id uuid PRIMARY KEY,
            wrapped bytea,
            created_at timestamptz NOT NULL,
            destroyed_at timestamptz,
            CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
        );
        CREATE INDEX inbox_key_newest ON integrations.inbox_key (created_at);
        GRANT SELECT, INSERT ON integrations.inbox_key TO mizan_api, mizan_worker;
        GRANT UPDATE (wrapped, destroyed_at) ON integrations.inbox_key TO mizan_worker
    """)


def _deliveries() -> None:
    op.execute(f"""
        -- One received webhook, exactly as it came, for ever. No foreign key to the partner: the hook has just looked
        -- it up, partners are never deleted, and a check per row would cost a tenth of the inbox.
        --
        -- delivery_key is what may exist once per partner: the SHA-256 of the webhook-id for what took the id (new,
        -- ignored), of the id and the body for what did not (rejected, evidence), so that a partner that retries the
        -- same mistake for days adds one row, and the id stays free for the corrected body.
        CREATE TABLE integrations.delivery (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            delivery_key bytea NOT NULL CHECK (octet_length(delivery_key) = 32),
            kind text NOT NULL CHECK (kind IN ('new', 'ignored', 'rejected', 'evidence')),
            event_type text NOT NULL,
            lane smallint NOT NULL CHECK (lane BETWEEN 0 AND 15),
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            body_digest bytea NOT NULL CHECK (octet_length(body_digest) = 32),
            body_sealed bytea NOT NULL,
            inbox_key_id uuid NOT NULL,
            received_at timestamptz NOT NULL,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            UNIQUE (partner_id, delivery_key)
        );
        -- encrypted bytes don't compress
        ALTER TABLE integrations.delivery ALTER COLUMN body_sealed SET STORAGE EXTERNAL;
        CREATE INDEX delivery_horizon ON integrations.delivery (partner_id, era, xid, id);
        CREATE INDEX delivery_inbox_key ON integrations.delivery (inbox_key_id);

        -- What waits for a worker, a lane's oldest first; deleted with the outcome's transaction.
        CREATE TABLE integrations.delivery_queue (
            lane smallint NOT NULL,
            id uuid NOT NULL,
            attempt smallint NOT NULL DEFAULT 1,
            approved boolean NOT NULL DEFAULT false,
            PRIMARY KEY (lane, id)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

        -- What became of it, once per attempt: the highest attempt stands, the others are its history.
        CREATE TABLE integrations.delivery_outcome (
            delivery_id uuid NOT NULL,
            attempt smallint NOT NULL,
            partner_id uuid NOT NULL,
            state text NOT NULL CHECK (state IN ('posted', 'duplicate', 'reversed', 'unallocated', 'quarantined',
                                                 'parked', 'ignored', 'conflict', 'replayed')),
            reason text,
            detail jsonb,
            remittance_id uuid,
            processed_at timestamptz NOT NULL,
            PRIMARY KEY (delivery_id, attempt)
        );
        CREATE INDEX delivery_outcome_attention ON integrations.delivery_outcome (state, delivery_id)
            WHERE state IN ('quarantined', 'parked');

        CREATE FUNCTION integrations.refuse_change() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            RAISE EXCEPTION 'what was received, and what became of it, is never changed' USING ERRCODE = 'MZ201';
        END $$;
        CREATE TRIGGER delivery_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON integrations.delivery
            FOR EACH STATEMENT EXECUTE FUNCTION integrations.refuse_change();
        CREATE TRIGGER delivery_outcome_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON integrations.delivery_outcome
            FOR EACH STATEMENT EXECUTE FUNCTION integrations.refuse_change();

        ALTER TABLE integrations.delivery ENABLE ROW LEVEL SECURITY;
        ALTER TABLE integrations.delivery_outcome ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON integrations.delivery USING {OWN_ROWS};
        CREATE POLICY own_rows ON integrations.delivery_outcome USING {OWN_ROWS};
        CREATE POLICY auditor ON integrations.delivery FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON integrations.delivery_outcome FOR SELECT TO mizan_auditor USING (true);
        GRANT SELECT ON integrations.delivery, integrations.delivery_outcome, integrations.delivery_queue TO mizan_api;
        -- era and xid are always the defaults
        GRANT INSERT (id, partner_id, delivery_key, kind, event_type, lane, digest, body_digest, body_sealed,
                      inbox_key_id, received_at) ON integrations.delivery TO mizan_api;
        GRANT INSERT ON integrations.delivery_outcome TO mizan_api;
        GRANT INSERT (lane, id) ON integrations.delivery_queue TO mizan_api;
        GRANT SELECT ON integrations.delivery TO mizan_worker;
        GRANT SELECT, INSERT ON integrations.delivery_outcome TO mizan_worker;
        GRANT SELECT, INSERT, DELETE ON integrations.delivery_queue TO mizan_worker
    """)
