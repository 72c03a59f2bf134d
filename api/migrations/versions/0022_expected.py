"""What is expected at the bank: where items come from, and what pairing does to the books.

Revision 0022; follows 0021_pairing.
"""

from alembic import op

revision = "0022_expected"
down_revision = "0021_pairing"
branch_labels = None
depends_on = None

_STAFF = "current_setting('mizan.access', true) = 'staff'"
_DIGITS = "0123456789abcdefghijklmnopqrstuv"


def upgrade() -> None:
    """Create the tables."""
    _public_ids()
    _settlements()
    _effects()
    _access()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _public_ids() -> None:
    digits = " || ".join(
        f"substr('{_DIGITS}', substring(b.bits FROM {1 + 5 * place} FOR 5)::bit(5)::integer + 1, 1)"
        for place in range(26)
    )
    op.execute(f"""
        -- The public spelling of an id, as `ledger.ids.public_id` writes it: what statements and people name things by.
        CREATE FUNCTION ledger.public_id(prefix text, id uuid) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
            SET search_path = pg_catalog, pg_temp AS $$
            SELECT prefix || '_' || {digits}
            FROM (SELECT ('x' || replace(id::text, '-', '') || '0')::bit(132) AS bits) AS b
        $$
    """)


def _settlements() -> None:
    op.execute("""
        -- amount + credits + fees = paired + unidentified + topped_up + carried. carried: what paid for no whole contribution and
        -- became the partner's credit when it paid again. cash_fund: whose bank account the money came to, all of it; null: each
        -- fund's got what it was owed. days, funds: what it pays for, where that was said.
        ALTER TABLE products.settlement
            ADD carried bigint NOT NULL DEFAULT 0 CHECK (carried >= 0),
            ADD cash_fund uuid REFERENCES ledger.fund,
            ADD days date[] CHECK (cardinality(days) > 0),
            ADD funds uuid[] CHECK (cardinality(funds) > 0);
        CREATE INDEX settlement_rest ON products.settlement (partner_id, programme_id)
            WHERE unidentified > 0 AND state = 'paired';
        GRANT UPDATE (carried) ON products.settlement TO mizan_worker;
        ALTER TABLE products.settlement_credit DROP CONSTRAINT settlement_credit_reason_check,
            ADD CONSTRAINT settlement_credit_reason_check
                CHECK (reason IN ('reversed', 'netted', 'returned', 'carried'));
        ALTER TABLE products.rail_report DROP CONSTRAINT rail_report_source_check,
            ADD CONSTRAINT rail_report_source_check
                CHECK (source IN ('answer', 'callback', 'file', 'hand', 'statement'));

        -- What a sponsor called its payment.
        CREATE TABLE products.sponsor_payment (
            transaction_id uuid PRIMARY KEY,
            sponsor_id uuid NOT NULL REFERENCES products.sponsor,
            reference text NOT NULL
        )
    """)


def _effects() -> None:
    op.execute("""
        -- what is expected is few beside what is booked, and looked at by every run
        CREATE INDEX item_expected ON ledger.item (source, id) WHERE closed_at IS NULL AND source <> 'booked';
        -- The item that stands for what a partner owes of one day at one bank account.
        CREATE TABLE products.expected_settlement (
            item_id uuid PRIMARY KEY REFERENCES ledger.item,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            day date NOT NULL,
            UNIQUE (partner_id, programme_id, bank_account_id, day)
        );

        -- Money on a bank account whose sender or purpose is not known: it lies in unidentified receipts. settlement_id: the
        -- settlement that it turned out to be.
        CREATE TABLE products.receipt (
            id uuid PRIMARY KEY,
            bank_account_id uuid NOT NULL REFERENCES ledger.bank_account,
            fund_id uuid NOT NULL REFERENCES ledger.fund,
            currency char(3) NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            line_id uuid NOT NULL REFERENCES ledger.statement_line,
            transaction_id uuid NOT NULL,
            booked_on date NOT NULL,
            state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'identified', 'taken_back')),
            settlement_id uuid REFERENCES products.settlement,
            recorded_by text NOT NULL,
            recorded_at timestamptz NOT NULL,
            ended_at timestamptz,
            CHECK ((state = 'open') = (ended_at IS NULL)),
            CHECK (state <> 'identified' OR settlement_id IS NOT NULL)
        );
        CREATE INDEX receipt_open ON products.receipt (bank_account_id, id) WHERE state = 'open';

        -- What a pairing did to the books. subject: the payout, settlement or receipt; transaction_id: what was posted.
        -- balanced_by: the pairing of the bank's postings with those that take them back, once it was undone.
        CREATE TABLE products.pairing_effect (
            id uuid PRIMARY KEY,
            pairing_id uuid NOT NULL REFERENCES ledger.pairing,
            kind text NOT NULL CHECK (kind IN ('payout', 'settlement', 'charge', 'receipt', 'conversion', 'booked')),
            subject uuid,
            transaction_id uuid NOT NULL,
            undone_at timestamptz,
            balanced_by uuid REFERENCES ledger.pairing
        );
        CREATE INDEX pairing_effect_of ON products.pairing_effect (pairing_id);
        CREATE INDEX pairing_effect_transaction ON products.pairing_effect (transaction_id);
        CREATE INDEX pairing_effect_unbalanced ON products.pairing_effect (id)
            WHERE undone_at IS NOT NULL AND balanced_by IS NULL
    """)


def _access() -> None:
    op.execute(f"""
        GRANT SELECT, INSERT ON products.sponsor_payment, products.expected_settlement, products.receipt,
            products.pairing_effect TO mizan_worker;
        GRANT UPDATE (state, settlement_id, ended_at) ON products.receipt TO mizan_worker;
        GRANT UPDATE (undone_at, balanced_by) ON products.pairing_effect TO mizan_worker;
        GRANT SELECT ON products.sponsor_payment, products.expected_settlement, products.receipt,
            products.pairing_effect TO mizan_auditor;
        GRANT SELECT ON products.receipt, products.pairing_effect TO mizan_api;
        ALTER TABLE products.receipt ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.receipt TO mizan_api USING ({_STAFF} AND EXISTS (
            SELECT FROM ledger.bank_account b WHERE b.id = receipt.bank_account_id));
        CREATE POLICY auditor ON products.receipt FOR SELECT TO mizan_auditor USING (true);
        ALTER TABLE products.pairing_effect ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.pairing_effect TO mizan_api USING ({_STAFF} AND EXISTS (
            SELECT FROM ledger.pairing p WHERE p.id = pairing_effect.pairing_id));
        CREATE POLICY auditor ON products.pairing_effect FOR SELECT TO mizan_auditor USING (true)
    """)
