"""The close of a period: runs of verification, explanations, closes and their packs.

Revision 0024; follows 0023_breaks. What a close says never changes: whatever reopens one of its funds marks it as reopened, by a
trigger, and the next close of that month is a revision of its own.
"""

from alembic import op

revision = "0024_close"
down_revision = "0023_breaks"
branch_labels = None
depends_on = None

_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_STAFF = "nullif(current_setting('mizan.access', true), '') = 'staff'"
_OF_PROGRAMME = f"{_STAFF} AND ({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- A run of the verification: asked for, then carried out. Everything before (era, horizon) was looked at.
        CREATE TABLE ledger.verification (
            id uuid PRIMARY KEY,
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL,
            verified_at timestamptz,
            ok boolean,
            transactions bigint,
            postings bigint,
            unsealed bigint,
            findings jsonb,
            era smallint,
            horizon xid8,
            CHECK (num_nulls(verified_at, ok, transactions, postings, unsealed, findings, era, horizon) IN (0, 8))
        );
        CREATE INDEX verification_last ON ledger.verification (verified_at) WHERE verified_at IS NOT NULL;
        CREATE UNIQUE INDEX verification_asked ON ledger.verification ((verified_at IS NULL)) WHERE verified_at IS NULL;
        CREATE FUNCTION ledger.refuse_second_verdict() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF old.verified_at IS NOT NULL OR (new.id, new.asked_by, new.asked_at) <> (old.id, old.asked_by, old.asked_at) THEN
                RAISE EXCEPTION 'a verification has one verdict' USING errcode = 'MZ002';
            END IF;
            RETURN new;
        END
        $$;
        CREATE TRIGGER one_verdict BEFORE UPDATE ON ledger.verification
            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_second_verdict();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON ledger.verification
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        ALTER TABLE ledger.verification ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON ledger.verification TO mizan_api, mizan_worker, mizan_auditor;
        GRANT INSERT (id, asked_by, asked_at) ON ledger.verification TO mizan_worker;
        GRANT UPDATE (verified_at, ok, transactions, postings, unsealed, findings, era, horizon)
            ON ledger.verification TO mizan_worker;

        -- Why something on a check-list is as it is: a person's word, about one finding as it then was: its facts.
        CREATE TABLE products.close_explanation (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            month date NOT NULL CHECK (month = date_trunc('month', month)),
            item text NOT NULL,
            subject text NOT NULL,
            facts jsonb NOT NULL,
            remark text NOT NULL CHECK (remark <> ''),
            owner text CHECK (owner <> ''),
            explained_by text NOT NULL,
            explained_at timestamptz NOT NULL
        );
        CREATE INDEX close_explanation_of ON products.close_explanation (programme_id, month, item, subject, id);
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON products.close_explanation
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        -- One close of a programme's month. digest: of the figures, in their one spelling, that the pack is made from;
        -- snapshot: what was in the books then; audit_entry: where the seals find the digests.
        CREATE TABLE products.close (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            month date NOT NULL CHECK (month = date_trunc('month', month)),
            revision integer NOT NULL CHECK (revision > 0),
            through date NOT NULL,
            funds uuid[] NOT NULL CHECK (cardinality(funds) > 0),
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            audit_entry uuid NOT NULL REFERENCES ledger.audit_entry,
            era smallint NOT NULL,
            snapshot pg_snapshot NOT NULL,
            remark text NOT NULL,
            closed_by text NOT NULL,
            closed_at timestamptz NOT NULL,
            reopened_at timestamptz,
            reopened_by text,
            reopen_reason text,
            UNIQUE (programme_id, month, revision),
            CHECK ((reopened_at IS NULL) = (reopened_by IS NULL)),
            CHECK ((reopened_at IS NULL) = (reopen_reason IS NULL))
        );
        CREATE UNIQUE INDEX close_standing ON products.close (programme_id, month) WHERE reopened_at IS NULL;
        CREATE INDEX close_digest ON products.close (digest);

        -- The pack, made once at the close.
        CREATE TABLE products.close_file (
            close_id uuid NOT NULL REFERENCES products.close,
            format text NOT NULL CHECK (format IN ('json', 'html', 'csv', 'pdf')),
            content bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 67108864),
            digest bytea NOT NULL CHECK (digest = sha256(content)),
            PRIMARY KEY (close_id, format)
        );
        CREATE INDEX close_file_digest ON products.close_file (digest);
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON products.close_file
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        CREATE FUNCTION products.close_changed() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF old.reopened_at IS NOT NULL
                OR to_jsonb(new) - '{reopened_at,reopened_by,reopen_reason}'::text[]
                    IS DISTINCT FROM to_jsonb(old) - '{reopened_at,reopened_by,reopen_reason}'::text[] THEN
                RAISE EXCEPTION 'a close is reopened once, and nothing else of it changes' USING errcode = 'MZ002';
            END IF;
            RETURN new;
        END
        $$;
        CREATE TRIGGER only_reopens BEFORE UPDATE ON products.close FOR EACH ROW EXECUTE FUNCTION products.close_changed();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.close
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        -- Whoever reopens a fund of a close, by whatever way, supersedes its pack.
        CREATE FUNCTION products.fund_reopened() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            UPDATE products.close AS c
            SET reopened_at = new.recorded_at, reopened_by = new.actor, reopen_reason = new.remark
            WHERE new.fund_id = ANY (c.funds) AND c.through > new.through AND c.reopened_at IS NULL;
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER fund_reopened AFTER INSERT ON ledger.period_event
            FOR EACH ROW WHEN (new.kind = 'reopen') EXECUTE FUNCTION products.fund_reopened();

        ALTER TABLE products.close ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.close_file ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.close_explanation ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON products.close, products.close_file, products.close_explanation TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT ON products.close, products.close_file, products.close_explanation TO mizan_worker
    """)
    policies = {
        # of all the books: whoever sees a fund has its verdict in the way of a close
        "ledger.verification": f"{_STAFF} AND EXISTS (SELECT FROM ledger.fund)",
        "products.close": _OF_PROGRAMME,
        "products.close_explanation": _OF_PROGRAMME,
        "products.close_file": "EXISTS (SELECT FROM products.close c WHERE c.id = close_file.close_id)",
    }
    for table, condition in policies.items():
        policy = "of_close" if table == "products.close_file" else "staff"
        op.execute(f"""
            CREATE POLICY {policy} ON {table} TO mizan_api USING ({condition});
            CREATE POLICY auditor ON {table} FOR SELECT TO mizan_auditor USING (true)
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
