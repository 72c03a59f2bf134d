"""Items, pairings, and the rules by which lines and items are paired.

Revision 0021; follows 0020_bank_statements.
"""

from alembic import op

revision = "0021_pairing"
down_revision = "0020_bank_statements"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
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
            UNIQUE (transaction_id, seq)
        );
        CREATE INDEX item_days ON ledger.item (bank_account_id, on_date, id);
        -- Lines and items that belong together: their sums are equal. Never changed but to say that it was taken back.
        CREATE TABLE ledger.pairing (
            id uuid PRIMARY KEY,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            run_id uuid,
            rule text NOT NULL,
            evidence jsonb NOT NULL,
            amount bigint NOT NULL,
            lines uuid[] NOT NULL,
            items uuid[] NOT NULL,
            made_by text NOT NULL,
            made_at timestamptz NOT NULL,
            undone_at timestamptz,
            undone_by text,
            undone_remark text
        );
        CREATE TABLE ledger.paired_line (line_id uuid PRIMARY KEY, pairing_id uuid NOT NULL REFERENCES ledger.pairing);
        CREATE TABLE ledger.paired_item (item_id uuid PRIMARY KEY, pairing_id uuid NOT NULL REFERENCES ledger.pairing)
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
