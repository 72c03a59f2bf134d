"""Items, pairings, and the rules by which lines and items are paired.

Revision 0021; follows 0020_bank_statements. `ledger.pairing` is the journal of what was paired and what was taken back;
`paired_line` and `paired_item` are what stands now. Triggers alone write them, from the journal, in sets: so no line and no
item stands in two, what stands adds up, and what was taken back stands no more, whatever the code does.
"""

from alembic import op

revision = "0021_pairing"
down_revision = "0020_bank_statements"
branch_labels = None
depends_on = None

_STAFF = "current_setting('mizan.access', true) = 'staff'"
_OF_ACCOUNT = "EXISTS (SELECT FROM ledger.bank_account b WHERE b.id = {table}.bank_account_id)"
_OF_PAIRING = "EXISTS (SELECT FROM ledger.pairing p WHERE p.id = {table}.pairing_id)"
_GUARDED = {
    "item": _OF_ACCOUNT,
    "pairing": _OF_ACCOUNT,
    "pairing_run": _OF_ACCOUNT,
    "pairing_rules": _OF_ACCOUNT,
    "paired_line": _OF_PAIRING,
    "paired_item": _OF_PAIRING,
}
"""The bank account's own policy says whose it is."""


def upgrade() -> None:
    """Create the tables, their triggers and who may see them."""
    _items()
    _rules()
    _pairings()
    _triggers()
    for table, condition in _GUARDED.items():
        op.execute(f"""
            ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY staff ON ledger.{table} TO mizan_api USING ({_STAFF} AND {condition.format(table=table)});
            CREATE POLICY auditor ON ledger.{table} FOR SELECT TO mizan_auditor USING (true);
            GRANT SELECT ON ledger.{table} TO mizan_api, mizan_worker, mizan_auditor
        """)
    op.execute("""
        GRANT INSERT ON ledger.item, ledger.pairing, ledger.pairing_run, ledger.pairing_rules TO mizan_worker;
        -- what a posting is is never changed; what names it, and what is expected, may be
        GRANT UPDATE (amount, on_date, day, end_to_end, reference, identifiers, party, batch, subject, closed_at)
            ON ledger.item TO mizan_worker;
        GRANT UPDATE (undone_at, undone_by, undone_remark) ON ledger.pairing TO mizan_worker;
        -- what a run works on lies in temporary tables; a database that was made for Mizan before grants them to nobody
        DO $$ BEGIN
            IF NOT has_database_privilege('mizan_worker', current_database(), 'TEMPORARY') THEN
                EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO mizan_worker', current_database());
            END IF;
        END $$
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _items() -> None:
    op.execute("""
        -- What a statement line may be the other side of. booked: a posting on an account that a bank account mirrors; payout: a
        -- payment that was sent and not confirmed; settlement: what a partner owes of one day. amount: signed as in statements.
        CREATE TABLE ledger.item (
            id uuid PRIMARY KEY,
            source text NOT NULL CHECK (source IN ('booked', 'payout', 'settlement')),
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            amount bigint NOT NULL CHECK (amount <> 0),
            currency char(3) NOT NULL,
            on_date date NOT NULL,
            day date,
            kind text NOT NULL,
            end_to_end text,
            reference text,
            identifiers text[] NOT NULL DEFAULT '{}',
            party text,
            batch text,
            subject text,
            transaction_id uuid,
            seq smallint,
            closed_at timestamptz,
            -- a posting between two mirrored accounts is an item of each
            UNIQUE (transaction_id, seq, bank_account_id),
            CHECK ((source = 'booked') = (transaction_id IS NOT NULL)),
            CHECK ((transaction_id IS NULL) = (seq IS NULL))
        );
        CREATE INDEX item_days ON ledger.item (bank_account_id, on_date, id)
    """)


def _rules() -> None:
    op.execute("""
        -- By which rules a bank account's lines are paired: every version that was ever applied; the newest holds.
        CREATE TABLE ledger.pairing_rules (
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            version integer NOT NULL CHECK (version > 0),
            content jsonb NOT NULL,
            applied_by text NOT NULL,
            applied_at timestamptz NOT NULL,
            PRIMARY KEY (bank_account_id, version)
        );
        -- The rules tried in order over one bank account, once, with what they found: by_rule says how many pairings each made. A
        -- run of everything (run_id) may try them twice.
        CREATE TABLE ledger.pairing_run (
            id uuid PRIMARY KEY,
            run_id uuid NOT NULL,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            rules_version integer NOT NULL, -- 0: those that come with the program
            made_by text NOT NULL,
            made_at timestamptz NOT NULL,
            by_rule jsonb NOT NULL,
            proposals integer NOT NULL
        );
        CREATE INDEX pairing_run_of ON ledger.pairing_run (bank_account_id, id)
    """)


def _pairings() -> None:
    op.execute("""
        -- Lines and items that belong together: their sums are equal. Never changed but to say, once, that it was taken back.
        -- No foreign keys: the triggers see to it that what it names is there and of its bank account.
        CREATE TABLE ledger.pairing (
            id uuid PRIMARY KEY,
            bank_account_id uuid NOT NULL,
            run_id uuid,
            rule text NOT NULL,
            evidence jsonb NOT NULL,
            amount bigint NOT NULL,
            lines uuid[] NOT NULL,
            items uuid[] NOT NULL CHECK (cardinality(items) > 0),
            made_by text NOT NULL,
            made_at timestamptz NOT NULL,
            undone_at timestamptz,
            undone_by text,
            undone_remark text,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            CHECK ((undone_at IS NULL) = (undone_by IS NULL)),
            CHECK ((undone_at IS NULL) = (undone_remark IS NULL)),
            -- without a line: postings of which the later takes the earlier back, so that the bank will never show either
            CHECK (cardinality(lines) > 0 OR amount = 0 AND cardinality(items) > 1)
        );
        CREATE INDEX pairing_horizon ON ledger.pairing (era, xid, id);
        CREATE INDEX pairing_undone ON ledger.pairing (bank_account_id) WHERE undone_at IS NOT NULL;
        CREATE TABLE ledger.paired_line (line_id uuid PRIMARY KEY, pairing_id uuid NOT NULL);
        CREATE TABLE ledger.paired_item (item_id uuid PRIMARY KEY, pairing_id uuid NOT NULL)
    """)


def _triggers() -> None:
    op.execute("""
        -- Sets at once: a foreign key's or a row trigger's look-ups, row by row, cost more than all the pairing. Planned each time
        -- (EXECUTE), as one pairing and a million want different plans. What is put into the standing tables is always refused
        -- when it stands already. That it adds up, is there and is of the account is looked at for up to 10,000 pairings at once,
        -- which is every person's and every day's; for the run that pairs a year at once it would cost a sixth of it, and
        -- `ledger verify` looks at all of them.
        CREATE FUNCTION ledger.pairing_made() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp SET enable_nestloop = on SET enable_mergejoin = off AS $$
        DECLARE
            wrong uuid;
        BEGIN
            EXECUTE 'INSERT INTO ledger.paired_line (line_id, pairing_id)
                     SELECT unnest(lines) AS line, id FROM made ORDER BY 1';
            EXECUTE 'INSERT INTO ledger.paired_item (item_id, pairing_id)
                     SELECT unnest(items) AS item, id FROM made ORDER BY 1';
            IF (SELECT count(*) FROM (SELECT FROM made LIMIT 10001) AS most) > 10000 THEN
                RETURN NULL;
            END IF;
            EXECUTE '
                WITH line AS (
                    SELECT m.id, sum(l.amount) AS amount, count(*) AS size
                    FROM (SELECT id, bank_account_id, unnest(lines) AS line FROM made) AS m
                    JOIN ledger.statement_line l ON l.id = m.line AND l.bank_account_id = m.bank_account_id
                        AND l.duplicate_of IS NULL GROUP BY m.id
                ), item AS (
                    SELECT m.id, sum(i.amount) AS amount, count(*) AS size
                    FROM (SELECT id, bank_account_id, unnest(items) AS item FROM made) AS m
                    JOIN ledger.item i ON i.id = m.item AND i.bank_account_id = m.bank_account_id
                        AND i.source = ''booked'' AND i.closed_at IS NULL GROUP BY m.id
                )
                SELECT m.id FROM made m LEFT JOIN line ON line.id = m.id LEFT JOIN item ON item.id = m.id
                WHERE (coalesce(line.amount, 0), coalesce(line.size, 0), item.amount, item.size, m.undone_at)
                      IS DISTINCT FROM (m.amount, cardinality(m.lines), m.amount, cardinality(m.items), NULL)
                LIMIT 1' INTO wrong;
            IF wrong IS NOT NULL THEN
                RAISE EXCEPTION 'pairing % does not add up, or what it pairs is not of its account or takes no part', wrong
                    USING ERRCODE = 'MZ002';
            END IF;
            RETURN NULL;
        END $$;
        CREATE FUNCTION ledger.pairing_undone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            DELETE FROM ledger.paired_line p USING undone u
                WHERE p.line_id = ANY (u.lines) AND p.pairing_id = u.id;
            DELETE FROM ledger.paired_item p USING undone u
                WHERE p.item_id = ANY (u.items) AND p.pairing_id = u.id;
            RETURN NULL;
        END $$;
        CREATE FUNCTION ledger.refuse_pairing_change() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF OLD.undone_at IS NOT NULL OR NEW.undone_at IS NULL
               OR (to_jsonb(NEW) - ARRAY['undone_at', 'undone_by', 'undone_remark'])
                  <> (to_jsonb(OLD) - ARRAY['undone_at', 'undone_by', 'undone_remark']) THEN
                RAISE EXCEPTION 'a pairing is taken back once, and stays' USING ERRCODE = 'MZ002';
            END IF;
            RETURN NEW;
        END $$;
        CREATE FUNCTION ledger.refuse_item_change() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF OLD.source = 'booked' THEN
                RAISE EXCEPTION 'an item is what its posting is' USING ERRCODE = 'MZ002';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER made AFTER INSERT ON ledger.pairing REFERENCING NEW TABLE AS made
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.pairing_made();
        CREATE TRIGGER undone_once BEFORE UPDATE ON ledger.pairing
            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_pairing_change();
        CREATE TRIGGER undone AFTER UPDATE ON ledger.pairing REFERENCING NEW TABLE AS undone
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.pairing_undone();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON ledger.pairing
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER as_posted BEFORE UPDATE OF amount, on_date, closed_at ON ledger.item
            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_item_change();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON ledger.item
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.pairing_rules
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.pairing_run
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse()
    """)
