"""Breaks, what happened to them, and their resolutions.

Revision 0023; follows 0022_expected. Staff of the programme see them, and nobody else; the worker writes.
"""

from alembic import op

revision = "0023_breaks"
down_revision = "0022_expected"
branch_labels = None
depends_on = None

_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_STAFF = (
    "nullif(current_setting('mizan.access', true), '') = 'staff'"
    f" AND ({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)


def upgrade() -> None:
    """Create the tables."""
    op.execute(f"""
        -- What does not tie, and why: one row for each subject while it lasts, kept when it is over. amount: signed as in
        -- statements; facts: a digest of what it was found from, by which one that was resolved is told from one that came back.
        CREATE TABLE products.break (
            id uuid PRIMARY KEY,
            type text NOT NULL CHECK (type IN (
                'timing', 'missing_in_bank', 'missing_in_books', 'short', 'over', 'fee', 'fx', 'wrong_account',
                'returned_settlement', 'unapplied_receipt', 'settled_but_quarantined', 'reversed_after_settlement',
                'statement_gap', 'agency_rejection', 'rail_paid_bank_silent', 'duplicate', 'unknown_party')),
            programme_id uuid NOT NULL,
            bank_account_id uuid,
            fund_id uuid NOT NULL,
            partner_id uuid,
            subject_kind text NOT NULL CHECK (subject_kind IN (
                'line', 'item', 'gap', 'delivery', 'credit', 'settlement', 'receipt', 'remittal_line')),
            subject text NOT NULL,
            amount bigint NOT NULL,
            currency char(3) NOT NULL,
            on_date date NOT NULL,
            facts bytea NOT NULL CHECK (octet_length(facts) = 32),
            details jsonb NOT NULL,
            found_at timestamptz NOT NULL,
            state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'waiting', 'resolved', 'gone')),
            owner text,
            waits_until date,
            remark text,
            ended_at timestamptz,
            CHECK ((state IN ('resolved', 'gone')) = (ended_at IS NOT NULL)),
            CHECK ((state = 'waiting') = (waits_until IS NOT NULL))
        );
        CREATE UNIQUE INDEX break_of ON products.break (subject_kind, subject) WHERE ended_at IS NULL;
        CREATE INDEX break_subject ON products.break (subject_kind, subject, id);
        CREATE INDEX break_open ON products.break (currency, abs(amount) DESC, id) WHERE ended_at IS NULL;

        -- What one refresh finds, until it is compared with the breaks on record: empty between two transactions, so that nothing is
        -- lost with it.
        CREATE UNLOGGED TABLE products.break_found (
            subject_kind text NOT NULL,
            subject text NOT NULL,
            type text NOT NULL,
            programme_id uuid NOT NULL,
            bank_account_id uuid,
            fund_id uuid NOT NULL,
            partner_id uuid,
            amount bigint NOT NULL,
            currency char(3) NOT NULL,
            on_date date NOT NULL,
            items uuid[] NOT NULL DEFAULT '{{}}',
            details jsonb NOT NULL,
            PRIMARY KEY (subject_kind, subject)
        );
        GRANT SELECT, INSERT, DELETE ON products.break_found TO mizan_worker;

        -- What happened to a break, in order.
        CREATE TABLE products.break_event (
            id uuid PRIMARY KEY,
            break_id uuid NOT NULL REFERENCES products.break,
            what text NOT NULL CHECK (what IN ('found', 'retyped', 'assigned', 'waiting', 'woken', 'requested', 'refused',
                                               'resolved', 'undone', 'gone')),
            by_whom text NOT NULL,
            at timestamptz NOT NULL,
            remark text NOT NULL DEFAULT '',
            details jsonb NOT NULL DEFAULT '{{}}'
        );
        CREATE INDEX break_event_of ON products.break_event (break_id, id);
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON products.break_event
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.break
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        -- How somebody would end a break: chosen and previewed, then confirmed as it was seen, perhaps taken back.
        -- digest: of the postings, the pairing and the facts that the preview showed.
        CREATE TABLE products.break_resolution (
            id uuid PRIMARY KEY,
            break_id uuid NOT NULL REFERENCES products.break,
            method text NOT NULL CHECK (method IN ('pair', 'book', 'split', 'write_off', 'wait', 'explain')),
            choice jsonb NOT NULL,
            preview jsonb NOT NULL,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            amount bigint NOT NULL CHECK (amount >= 0),
            state text NOT NULL DEFAULT 'previewed'
                CHECK (state IN ('previewed', 'requested', 'done', 'refused', 'undone')),
            previewed_by text NOT NULL,
            previewed_at timestamptz NOT NULL,
            remark text,
            confirmed_by text,
            confirmed_at timestamptz,
            approved_by text,
            transactions uuid[] NOT NULL DEFAULT '{{}}',
            pairings uuid[] NOT NULL DEFAULT '{{}}',
            undone_by text,
            undone_at timestamptz,
            undone_remark text
        );
        CREATE INDEX break_resolution_of ON products.break_resolution (break_id, id);
        -- of two who resolve one break at once, one wins
        CREATE UNIQUE INDEX break_resolution_standing ON products.break_resolution (break_id)
            WHERE state = 'done' AND method <> 'wait';
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.break_resolution
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        -- From which value on (minor units, of one currency) a second person decides a resolution; without a row, always.
        CREATE TABLE products.break_limit (
            programme_id uuid NOT NULL REFERENCES products.programme,
            currency char(3) NOT NULL,
            second_person_above bigint NOT NULL CHECK (second_person_above >= 0),
            changed_at timestamptz NOT NULL,
            PRIMARY KEY (programme_id, currency)
        );

        ALTER TABLE products.break ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.break_event ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.break_resolution ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.break_limit ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.break TO mizan_api USING ({_STAFF});
        CREATE POLICY staff ON products.break_limit TO mizan_api USING ({_STAFF});
        CREATE POLICY of_break ON products.break_event TO mizan_api
            USING (EXISTS (SELECT FROM products.break b WHERE b.id = break_event.break_id));
        CREATE POLICY of_break ON products.break_resolution TO mizan_api
            USING (EXISTS (SELECT FROM products.break b WHERE b.id = break_resolution.break_id));
        CREATE POLICY auditor ON products.break FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.break_event FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.break_resolution FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.break_limit FOR SELECT TO mizan_auditor USING (true);
        GRANT SELECT ON products.break, products.break_event, products.break_resolution, products.break_limit
            TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT ON products.break, products.break_event, products.break_resolution, products.break_limit
            TO mizan_worker;
        GRANT UPDATE (type, partner_id, amount, on_date, facts, details, state, owner, waits_until, remark, ended_at)
            ON products.break TO mizan_worker;
        GRANT UPDATE (state, remark, confirmed_by, confirmed_at, approved_by, transactions, pairings, undone_by,
                      undone_at, undone_remark) ON products.break_resolution TO mizan_worker;
        GRANT UPDATE (second_person_above, changed_at) ON products.break_limit TO mizan_worker
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
