"""Bank accounts, statements and their lines.

Revision 0020; follows 0019_payment_files.
"""

from alembic import op

revision = "0020_bank_statements"
down_revision = "0019_payment_files"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- An account at a bank (or a rail's wallet), and the ledger account that mirrors it: one per fund and currency.
        -- identification: IBAN or the bank's own number, as statements name it, without spaces, upper case.
        CREATE TABLE ledger.bank_account (
            id uuid PRIMARY KEY,
            slug text NOT NULL UNIQUE,
            name text NOT NULL,
            fund_id uuid NOT NULL REFERENCES ledger.fund,
            account_id uuid NOT NULL UNIQUE REFERENCES ledger.account,
            currency char(3) NOT NULL,
            identification text NOT NULL,
            servicer text,
            statements_since date NOT NULL,
            opened_at timestamptz NOT NULL,
            UNIQUE (identification, currency)
        );
        -- One file that came in, once by its content; the content rests sealed, in pieces.
        CREATE TABLE ledger.statement_file (
            id uuid PRIMARY KEY,
            digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
            name text NOT NULL,
            format text NOT NULL,
            bytes bigint NOT NULL,
            received_at timestamptz NOT NULL,
            received_by text NOT NULL
        );
        -- One statement of one account. opening + its lines = closing, or it is not here.
        CREATE TABLE ledger.bank_statement (
            id uuid PRIMARY KEY,
            file_id uuid NOT NULL REFERENCES ledger.statement_file,
            position integer NOT NULL,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            identification text,
            number text,
            from_on date NOT NULL,
            to_on date NOT NULL,
            opening bigint NOT NULL,
            closing bigint NOT NULL,
            lines integer NOT NULL,
            imported_at timestamptz NOT NULL,
            UNIQUE (file_id, position)
        );
        CREATE INDEX bank_statement_days ON ledger.bank_statement (bank_account_id, from_on, to_on);
        -- One line: an entry, or one of its transaction details. amount: minor units, positive when money came in, a reversal
        -- already turned. identifiers: what the rules' patterns found in the free text; text_sealed: the free text and the other
        -- side's name. duplicate_of: the same line of an overlapping statement; such a line takes part in nothing.
        CREATE TABLE ledger.statement_line (
            id uuid PRIMARY KEY,
            statement_id uuid NOT NULL REFERENCES ledger.bank_statement,
            bank_account_id uuid NOT NULL,
            entry integer NOT NULL,
            detail integer NOT NULL,
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
            fingerprint bytea NOT NULL,
            duplicate_of uuid,
            text_sealed bytea,
            UNIQUE (statement_id, entry, detail)
        );
        CREATE INDEX statement_line_days ON ledger.statement_line (bank_account_id, booked_on, id);
        CREATE INDEX statement_line_fingerprint ON ledger.statement_line (bank_account_id, fingerprint)
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
