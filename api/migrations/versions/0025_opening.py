"""Opening balances: loads from a spreadsheet, their rows as they were resolved, and the windows of match they open.

Revision 0025; follows 0024_close. What a load says never changes: its rows were resolved when it was loaded, and only gain the
transactions that posted them and took them back.
"""

from alembic import op

revision = "0025_opening"
down_revision = "0024_close"
branch_labels = None
depends_on = None

_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_STAFF = "nullif(current_setting('mizan.access', true), '') = 'staff'"
_OF_PROGRAMME = f"{_STAFF} AND ({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
_TABLES = ("opening_load", "opening_row", "opening_window")


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- One file of opening balances. batches: in how many transactions it is posted, done: how many of them stand.
        CREATE TABLE products.opening_load (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            name text NOT NULL CHECK (name <> ''),
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            effective_on date NOT NULL,
            rows integer NOT NULL CHECK (rows > 0),
            batches integer NOT NULL CHECK (batches > 0),
            done integer NOT NULL DEFAULT 0 CHECK (done BETWEEN 0 AND batches),
            state text NOT NULL DEFAULT 'loaded'
                CHECK (state IN ('loaded', 'committing', 'committed', 'final', 'taking_back', 'taken_back')),
            loaded_by text NOT NULL,
            loaded_at timestamptz NOT NULL,
            committed_by text,
            committed_at timestamptz,
            final_by text,
            final_at timestamptz,
            taken_back_by text,
            taken_back_at timestamptz,
            taken_back_because text,
            CHECK ((final_at IS NOT NULL) = (state = 'final'))
        );
        -- the same file opens the books once, unless it was taken back
        CREATE UNIQUE INDEX opening_load_digest ON products.opening_load (programme_id, digest) WHERE state <> 'taken_back';
        CREATE INDEX opening_load_at_work ON products.opening_load (id) WHERE state IN ('committing', 'taking_back');

        -- One row of the file, resolved. account_id is null for what is told and not posted: what partners owe in all, and
        -- match that awaits its sponsor's funds. against: where a contribution that is still owed is debited.
        CREATE TABLE products.opening_row (
            load_id uuid NOT NULL REFERENCES products.opening_load,
            number integer NOT NULL CHECK (number > 0),
            batch integer NOT NULL CHECK (batch > 0),
            sheet text NOT NULL,
            line integer NOT NULL,
            code text NOT NULL,
            fund_id uuid NOT NULL,
            control_id uuid NOT NULL,
            account_id uuid,
            against uuid,
            currency char(3) NOT NULL,
            amount bigint NOT NULL,
            partner_id uuid,
            member_id uuid,
            link_id uuid,
            enrolment_id uuid,
            product text,
            sponsor_id uuid,
            contributed_on date,
            contributed bigint NOT NULL DEFAULT 0 CHECK (contributed >= 0),
            window_start date,
            tier smallint,
            rule_version integer,
            remittance_id text,
            remittance uuid,
            transaction_id uuid,
            reversal_id uuid,
            CHECK ((remittance IS NULL) = (contributed = 0)),
            PRIMARY KEY (load_id, number)
        );
        CREATE INDEX opening_row_batch ON products.opening_row (load_id, batch, number);
        CREATE INDEX opening_row_account ON products.opening_row (account_id);

        -- Match of one enrolment in one window, as the file's contributions earn it; its shares are rows of the file.
        CREATE TABLE products.opening_window (
            load_id uuid NOT NULL REFERENCES products.opening_load,
            batch integer NOT NULL CHECK (batch > 0),
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            window_end date NOT NULL,
            by_tier bigint[] NOT NULL,
            settled_by_tier bigint[] NOT NULL,
            entitled bigint NOT NULL CHECK (entitled >= 0),
            rule_version integer NOT NULL,
            grants_on date,
            window_over boolean NOT NULL,
            PRIMARY KEY (load_id, enrolment_id, window_start)
        );
        CREATE INDEX opening_window_batch ON products.opening_window (load_id, batch);

        CREATE FUNCTION products.opening_row_changed() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF to_jsonb(new) - '{transaction_id,reversal_id}'::text[]
                    IS DISTINCT FROM to_jsonb(old) - '{transaction_id,reversal_id}'::text[]
                OR old.transaction_id IS NOT NULL AND new.transaction_id IS DISTINCT FROM old.transaction_id
                OR old.reversal_id IS NOT NULL AND new.reversal_id IS DISTINCT FROM old.reversal_id THEN
                RAISE EXCEPTION 'a row of a load is posted once and taken back once' USING errcode = 'MZ002';
            END IF;
            RETURN new;
        END
        $$;
        CREATE TRIGGER only_posted BEFORE UPDATE ON products.opening_row
            FOR EACH ROW EXECUTE FUNCTION products.opening_row_changed();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.opening_row
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.opening_load
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON products.opening_window
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        GRANT SELECT ON products.opening_load, products.opening_row, products.opening_window TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT ON products.opening_load, products.opening_row, products.opening_window TO mizan_worker;
        GRANT UPDATE (state, done, committed_by, committed_at, final_by, final_at, taken_back_by, taken_back_at,
                      taken_back_because) ON products.opening_load TO mizan_worker;
        GRANT UPDATE (transaction_id, reversal_id) ON products.opening_row TO mizan_worker
    """)
    for table in _TABLES:
        own = table == "opening_load"
        condition = (
            _OF_PROGRAMME
            if own
            else f"EXISTS (SELECT FROM products.opening_load l WHERE l.id = {table}.load_id)"
        )
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY {"staff" if own else "of_load"} ON products.{table} TO mizan_api USING ({condition});
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true)
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
