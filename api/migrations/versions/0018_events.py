"""Events out: what partners are told, their endpoints, and what was delivered to them.

Revision 0018; follows 0017_remittals. Grants and row-level security stand beside the tables they guard.
"""

from alembic import op

revision = "0018_events"
down_revision = "0017_remittals"
branch_labels = None
depends_on = None

# A partner's own, and staff's; nothing of it is one member's or one programme's, so a narrowed request sees none of it.
_OWN = """partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) = 'staff'"""
_UNNARROWED = """nullif(current_setting('mizan.member', true), '') IS NULL
    AND nullif(current_setting('mizan.programmes', true), '') IS NULL"""
_GUARDED = ("webhook_endpoint", "endpoint_secret", "event", "event_delivery", "event_stream", "event_attempt")


def upgrade() -> None:
    """Create the tables, and the way to prune the outbox."""
    _endpoints()
    _events()
    _deliveries()
    _guard()
    _outbox()
    # partners' clients that were made before these scopes were there
    op.execute("""
        UPDATE api.oauth_client SET scopes = scopes || '{endpoints:read,endpoints:write,events:read}'
        WHERE partner_id IS NOT NULL AND 'deliveries:read' = ANY (scopes) AND NOT 'events:read' = ANY (scopes)
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _endpoints() -> None:
    op.execute("""
        -- event_types: none means all
        CREATE TABLE integrations.webhook_endpoint (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            url text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
            description text NOT NULL,
            event_types text[] NOT NULL DEFAULT '{}',
            state text NOT NULL CHECK (state IN ('enabled', 'disabled', 'removed')),
            reason text CHECK (reason IN ('asked', 'gone', 'failing')),
            created_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL,
            failing_since timestamptz
        );
        CREATE INDEX webhook_endpoint_partner ON integrations.webhook_endpoint (partner_id, id);
        GRANT SELECT, INSERT ON integrations.webhook_endpoint TO mizan_api, mizan_worker;
        GRANT UPDATE (url, description, event_types, state, reason, changed_at, failing_since)
            ON integrations.webhook_endpoint TO mizan_api, mizan_worker;

        -- What we sign with, sealed under the keyring's purpose 'endpoint-secret'. Two may be valid at once.
        CREATE TABLE integrations.endpoint_secret (
            id uuid PRIMARY KEY,
            endpoint_id uuid NOT NULL REFERENCES integrations.webhook_endpoint,
            partner_id uuid NOT NULL,
            sealed bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz
        );
        CREATE INDEX endpoint_secret_endpoint ON integrations.endpoint_secret (endpoint_id);
        GRANT SELECT, INSERT, UPDATE (expires_at) ON integrations.endpoint_secret TO mizan_api, mizan_worker;
        GRANT DELETE ON integrations.endpoint_secret TO mizan_worker
    """)


def _events() -> None:
    op.execute("""
        -- What a partner is told, in the words of its own ids. seq is dealt by one writer at a time, which holds the
        -- row of outbox_position until it commits: whoever sees a number sees every smaller one.
        --
        -- stream: what must arrive in order; the member's link, or what the event is about where no member is known.
        -- digest: of the data; the same as the last of this subject and type says nothing new.
        CREATE TABLE integrations.event (
            id uuid PRIMARY KEY,
            seq bigint NOT NULL,
            partner_id uuid NOT NULL,
            stream uuid NOT NULL,
            link_id uuid,
            type text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            data jsonb NOT NULL,
            occurred_at timestamptz NOT NULL,
            UNIQUE (partner_id, seq)
        );
        CREATE INDEX event_member ON integrations.event (partner_id, link_id, seq) WHERE link_id IS NOT NULL;
        CREATE INDEX event_subject ON integrations.event (partner_id, subject, type, seq);
        CREATE INDEX event_occurred ON integrations.event (partner_id, occurred_at);
        GRANT SELECT ON integrations.event TO mizan_api;
        GRANT SELECT, INSERT, DELETE ON integrations.event TO mizan_worker
    """)


def _deliveries() -> None:
    op.execute("""
        -- One event for one endpoint. attempts counts all; tries those since it was queued last, which the schedule goes by.
        CREATE TABLE integrations.event_delivery (
            endpoint_id uuid NOT NULL,
            event_id uuid NOT NULL,
            partner_id uuid NOT NULL,
            stream uuid NOT NULL,
            seq bigint NOT NULL,
            state text NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
            reason text CHECK (reason IN ('exhausted', 'endpoint_gone', 'endpoint_disabled', 'endpoint_removed')),
            attempts smallint NOT NULL DEFAULT 0,
            tries smallint NOT NULL DEFAULT 0,
            queued_at timestamptz NOT NULL,
            finished_at timestamptz,
            PRIMARY KEY (endpoint_id, event_id)
        ) WITH (fillfactor = 80);
        CREATE INDEX event_delivery_waiting ON integrations.event_delivery (endpoint_id, stream, seq)
            WHERE state = 'waiting';
        CREATE INDEX event_delivery_seq ON integrations.event_delivery (endpoint_id, seq);
        CREATE INDEX event_delivery_event ON integrations.event_delivery (event_id);
        GRANT SELECT, INSERT ON integrations.event_delivery TO mizan_api, mizan_worker;
        GRANT UPDATE (state, reason, tries, queued_at, finished_at) ON integrations.event_delivery TO mizan_api;
        GRANT UPDATE, DELETE ON integrations.event_delivery TO mizan_worker;

        -- A stream with something waiting for an endpoint: its oldest is due then. Whoever delivers moves due_at ahead as
        -- a lease, and writes its claim, so a stream has one sender, and one that was killed is followed by another.
        CREATE TABLE integrations.event_stream (
            endpoint_id uuid NOT NULL,
            stream uuid NOT NULL,
            partner_id uuid NOT NULL,
            due_at timestamptz NOT NULL,
            claim uuid,
            PRIMARY KEY (endpoint_id, stream)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
        CREATE INDEX event_stream_due ON integrations.event_stream (endpoint_id, due_at);
        GRANT SELECT, INSERT, UPDATE (due_at) ON integrations.event_stream TO mizan_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON integrations.event_stream TO mizan_worker;

        -- status: of the answer, where there was one; error: the class of what went wrong. No bodies.
        CREATE TABLE integrations.event_attempt (
            endpoint_id uuid NOT NULL,
            event_id uuid NOT NULL,
            number smallint NOT NULL,
            partner_id uuid NOT NULL,
            started_at timestamptz NOT NULL,
            milliseconds integer NOT NULL,
            status smallint,
            error text,
            PRIMARY KEY (endpoint_id, event_id, number)
        );
        GRANT SELECT ON integrations.event_attempt TO mizan_api;
        GRANT SELECT, INSERT, DELETE ON integrations.event_attempt TO mizan_worker
    """)


def _guard() -> None:
    for table in _GUARDED:
        op.execute(f"""
            ALTER TABLE integrations.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own_rows ON integrations.{table} USING ({_OWN});
            CREATE POLICY narrowed ON integrations.{table} AS RESTRICTIVE TO mizan_api USING ({_UNNARROWED})
        """)
        if table != "endpoint_secret":
            op.execute(f"""
                GRANT SELECT ON integrations.{table} TO mizan_auditor;
                CREATE POLICY auditor ON integrations.{table} FOR SELECT TO mizan_auditor USING (true)
            """)


def _outbox() -> None:
    op.execute("""
        -- How far the outbox was read, and the last number dealt to an event.
        CREATE TABLE integrations.outbox_position (
            name text PRIMARY KEY,
            era smallint NOT NULL,
            xid xid8 NOT NULL,
            message_id uuid NOT NULL,
            seq bigint NOT NULL,
            read_at timestamptz NOT NULL
        );
        INSERT INTO integrations.outbox_position
        VALUES ('events', 0, '0', '00000000-0000-0000-0000-000000000000', 0, now());
        GRANT SELECT, UPDATE ON integrations.outbox_position TO mizan_worker;
        GRANT SELECT ON integrations.outbox_position TO mizan_auditor;

        -- Nobody deletes from the outbox but this: the oldest messages, once everyone who reads it has read them and they
        -- are older than `keep`, at least a day; how many. It looks at `most` rows, so a call's time is bounded.
        CREATE FUNCTION integrations.prune_outbox(keep interval, most integer) RETURNS integer
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            pruned integer;
        BEGIN
            DELETE FROM ledger.outbox o USING (
                SELECT oldest.id FROM (
                    SELECT m.id, m.recorded_at FROM ledger.outbox m
                    WHERE (m.era, m.xid, m.id) <= ALL (
                        SELECT p.era, p.xid, p.message_id FROM integrations.outbox_position p)
                    ORDER BY m.era, m.xid, m.id LIMIT least(most, 10000)
                ) AS oldest
                WHERE oldest.recorded_at < clock_timestamp() - greatest(keep, interval '1 day')
            ) AS done WHERE o.id = done.id;
            GET DIAGNOSTICS pruned = ROW_COUNT;
            RETURN pruned;
        END $$;
        REVOKE ALL ON FUNCTION integrations.prune_outbox FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION integrations.prune_outbox TO mizan_worker
    """)
