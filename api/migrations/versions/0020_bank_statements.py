"""Bank accounts, statements and their lines.

Revision 0020; follows 0019_payment_files. What a bank said is never changed and never deleted: of a line only its `party`, that it
is the same line of an overlapping statement, and its personal text (emptied when a member is erased) are. A statement that came in by
mistake is withdrawn, once: its lines take part in nothing from then on, and stay. A file's content and the
texts of its lines rest under a key of the file's own; when that is destroyed (`statement_file_days`), amounts, references and the
digest stay.
"""

from alembic import op

revision = "0020_bank_statements"
down_revision = "0019_payment_files"
branch_labels = None
depends_on = None

# the fund's own policy says for staff of which programmes it is
_OF_FUND = (
    "current_setting('mizan.access', true) = 'staff'"
    " AND EXISTS (SELECT FROM ledger.fund f WHERE f.id = {table}.fund_id)"
)
_OF_ACCOUNT = "EXISTS (SELECT FROM ledger.bank_account b WHERE b.id = {table}.bank_account_id)"
_OF_STATEMENT = "EXISTS (SELECT FROM ledger.bank_statement s WHERE s.file_id = {table}.{column})"
_TABLES = {
    "bank_account": ("of_fund", _OF_FUND),
    "bank_statement": ("of_account", _OF_ACCOUNT),
    "statement_line": ("of_account", _OF_ACCOUNT),
    "statement_file": ("of_statement", _OF_STATEMENT.replace("{column}", "id")),
    "statement_piece": ("of_statement", _OF_STATEMENT.replace("{column}", "file_id")),
    "bank_counterparty": ("of_account", _OF_ACCOUNT),
}


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- An account at a bank (or a rail's wallet), and the ledger account that mirrors it: one per fund and currency.
        -- identification: IBAN or the bank's own number, as statements name it, without spaces, upper case; also_known_as: other
        -- ways in which the bank's formats write it. statement_mapping: how its CSV files are read.
        CREATE TABLE ledger.bank_account (
            id uuid PRIMARY KEY,
            slug text NOT NULL UNIQUE,
            name text NOT NULL,
            fund_id uuid NOT NULL REFERENCES ledger.fund,
            account_id uuid NOT NULL UNIQUE REFERENCES ledger.account,
            currency char(3) NOT NULL,
            identification text NOT NULL CHECK (identification <> ''),
            also_known_as text[] NOT NULL DEFAULT '{}',
            servicer text,
            statements_since date NOT NULL,
            statements_until date,
            statement_mapping jsonb,
            opened_at timestamptz NOT NULL,
            UNIQUE (identification, currency),
            CHECK (statements_until >= statements_since)
        );
        -- One file that came in, once by its content; the content rests sealed, in pieces, under a key of its own. skipped: its
        -- statements that were left out when it came, and may still be brought in.
        CREATE TABLE ledger.statement_file (
            id uuid PRIMARY KEY,
            digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
            name text NOT NULL,
            format text NOT NULL,
            bytes bigint NOT NULL CHECK (bytes > 0),
            received_at timestamptz NOT NULL,
            received_by text NOT NULL,
            statements integer NOT NULL DEFAULT 0 CHECK (statements >= 0),
            skipped integer NOT NULL DEFAULT 0 CHECK (skipped >= 0),
            wrapped_key bytea,
            destroyed_at timestamptz,
            CHECK ((wrapped_key IS NULL) = (destroyed_at IS NOT NULL))
        );
        CREATE INDEX statement_file_kept ON ledger.statement_file (received_at) WHERE destroyed_at IS NULL;
        CREATE TABLE ledger.statement_piece (
            file_id uuid NOT NULL REFERENCES ledger.statement_file,
            number integer NOT NULL,
            sealed bytea NOT NULL,
            PRIMARY KEY (file_id, number)
        );
        ALTER TABLE ledger.statement_piece ALTER COLUMN sealed SET STORAGE EXTERNAL;
        -- One statement of one account. opening + its lines = closing, or it is not here. withdrawn: it came in by mistake; it
        -- counts nowhere, and may come in again.
        CREATE TABLE ledger.bank_statement (
            id uuid PRIMARY KEY,
            file_id uuid NOT NULL REFERENCES ledger.statement_file,
            position integer NOT NULL CHECK (position > 0),
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            identification text,
            number text,
            from_on date NOT NULL,
            to_on date NOT NULL,
            opening bigint NOT NULL,
            closing bigint NOT NULL,
            lines integer NOT NULL CHECK (lines >= 0),
            made_at timestamptz,
            imported_at timestamptz NOT NULL,
            withdrawn_at timestamptz,
            withdrawn_by text,
            withdrawn_because text,
            CHECK (from_on <= to_on),
            CHECK ((withdrawn_at IS NULL) = (withdrawn_by IS NULL) AND (withdrawn_at IS NULL) = (withdrawn_because IS NULL))
        );
        CREATE UNIQUE INDEX bank_statement_place ON ledger.bank_statement (file_id, position) WHERE withdrawn_at IS NULL;
        CREATE INDEX bank_statement_days ON ledger.bank_statement (bank_account_id, from_on, to_on);
        -- One line: an entry, or one of its transaction details. amount: minor units, positive when money came in, a reversal
        -- already turned. identifiers: its other references, and what the rules' patterns found in its text; text_sealed: the
        -- free text and the other side's name and account, counterparty_index: its blind index. duplicate_of: the same line of an overlapping statement, or the
        -- line itself when its statement was withdrawn; such a line takes part in nothing.
        CREATE TABLE ledger.statement_line (
            id uuid PRIMARY KEY,
            statement_id uuid NOT NULL REFERENCES ledger.bank_statement DEFERRABLE INITIALLY DEFERRED,
            bank_account_id uuid NOT NULL,
            entry integer NOT NULL CHECK (entry > 0),
            detail integer NOT NULL CHECK (detail >= 0),
            booked_on date NOT NULL,
            value_on date NOT NULL,
            amount bigint NOT NULL CHECK (amount <> 0),
            currency char(3) NOT NULL,
            kind text,
            reversal boolean NOT NULL,
            end_to_end text,
            reference text,
            identifiers text[] NOT NULL DEFAULT '{}',
            party text,
            counterparty_index bytea,
            fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
            duplicate_of uuid REFERENCES ledger.statement_line,
            text_sealed bytea,
            UNIQUE (statement_id, entry, detail)
        );
        CREATE INDEX statement_line_days ON ledger.statement_line (bank_account_id, booked_on, id);
        CREATE INDEX statement_line_fingerprint ON ledger.statement_line (bank_account_id, fingerprint);
        CREATE INDEX statement_line_duplicate ON ledger.statement_line (duplicate_of) WHERE duplicate_of IS NOT NULL;
        CREATE INDEX statement_line_nobody ON ledger.statement_line (bank_account_id, counterparty_index)
            WHERE party IS NULL AND counterparty_index IS NOT NULL;
        -- Whose account the other side of a line is, by its blind index; the latest that stands.
        CREATE TABLE ledger.bank_counterparty (
            id uuid PRIMARY KEY,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            account_index bytea NOT NULL CHECK (octet_length(account_index) = 32),
            ending text NOT NULL,
            party text NOT NULL,
            source text NOT NULL CHECK (source IN ('entered', 'learned')),
            added_by text NOT NULL,
            added_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE UNIQUE INDEX bank_counterparty_of ON ledger.bank_counterparty (bank_account_id, account_index)
            WHERE ended_at IS NULL;

        GRANT SELECT, INSERT ON ledger.bank_account, ledger.statement_file, ledger.statement_piece, ledger.bank_statement,
            ledger.statement_line, ledger.bank_counterparty TO mizan_worker;
        GRANT UPDATE (name, also_known_as, servicer, statements_since, statements_until, statement_mapping)
            ON ledger.bank_account TO mizan_worker;
        GRANT UPDATE (statements, skipped, wrapped_key, destroyed_at) ON ledger.statement_file TO mizan_worker;
        -- the content of a file is destroyed when its time is over
        GRANT DELETE ON ledger.statement_piece TO mizan_worker;
        GRANT UPDATE (withdrawn_at, withdrawn_by, withdrawn_because) ON ledger.bank_statement TO mizan_worker;
        GRANT UPDATE (party, counterparty_index, duplicate_of, text_sealed) ON ledger.statement_line TO mizan_worker;
        GRANT UPDATE (ended_at) ON ledger.bank_counterparty TO mizan_worker;
        GRANT SELECT ON ledger.bank_account, ledger.statement_file, ledger.statement_piece, ledger.bank_statement,
            ledger.statement_line, ledger.bank_counterparty TO mizan_api, mizan_auditor;
        -- what is withdrawn is withdrawn once, and stays
        CREATE TRIGGER withdrawn_once BEFORE UPDATE ON ledger.bank_statement
            FOR EACH ROW WHEN (OLD.withdrawn_at IS NOT NULL OR NEW.withdrawn_at IS NULL) EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER withdrawn_stays BEFORE UPDATE OF duplicate_of ON ledger.statement_line
            FOR EACH ROW WHEN (OLD.duplicate_of = OLD.id AND NEW.duplicate_of IS DISTINCT FROM OLD.id)
            EXECUTE FUNCTION ledger.refuse()
    """)
    for table in ("bank_account", "bank_statement", "statement_file", "statement_line", "bank_counterparty"):
        op.execute(f"""
            CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON ledger.{table}
                FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse()
        """)
    for table, (policy, whose) in _TABLES.items():
        op.execute(f"""
            ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY {policy} ON ledger.{table} TO mizan_api USING ({whose.format(table=table)});
            CREATE POLICY auditor ON ledger.{table} FOR SELECT TO mizan_auditor USING (true)
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
