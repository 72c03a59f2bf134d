"""Partners' settlement terms, what they owe by day, returns and defaults.

Revision 0014; follows 0013_vesting. What a contribution means for its settlement (the day it counts for, the fee, whether
it is guaranteed) is decided by the terms of its day and kept with it: changing terms never rewrites the past.
"""

from alembic import op

revision = "0014_settlements"
down_revision = "0013_vesting"
branch_labels = None
depends_on = None

_OWN_ROWS = """(partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) = 'staff')"""
_MEMBER = "nullif(current_setting('mizan.member', true), '')::uuid"
_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_IN_PROGRAMMES = (
    f"({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)
_NARROWED = {
    # a quote of one member is laid out by them too
    "settlement_terms": (
        f"({_MEMBER} IS NULL OR programme_id = (SELECT products.seen_member_programme())) AND {_IN_PROGRAMMES}"
    ),
    "settlement_credit": f"{_MEMBER} IS NULL AND {_IN_PROGRAMMES}",
    "partner_warning": f"{_MEMBER} IS NULL AND {_IN_PROGRAMMES}",
}


def upgrade() -> None:
    """Create the tables, and say of what was settled before how it was."""
    _terms()
    _contributions()
    _settlements()
    _credits()
    _warnings()
    for table, narrowed in _NARROWED.items():
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own_rows ON products.{table} USING {_OWN_ROWS};
            CREATE POLICY narrowed ON products.{table} AS RESTRICTIVE TO mizan_api USING ({narrowed});
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true);
            GRANT SELECT ON products.{table} TO mizan_api, mizan_auditor
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _terms() -> None:
    op.execute("""
        -- On which terms a partner pays in, from a day on; of two for the same day the later recorded one holds.
        CREATE TABLE products.settlement_terms (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            since date NOT NULL,
            terms text NOT NULL CHECK (terms IN ('net', 'prefunded', 'guaranteed')),
            currency char(3) NOT NULL,
            time_zone text NOT NULL,
            cut_off_minutes smallint NOT NULL CHECK (cut_off_minutes BETWEEN 1 AND 1440),
            business_days smallint NOT NULL CHECK (business_days BETWEEN 0 AND 60),
            countries text[] NOT NULL,
            pays text NOT NULL CHECK (pays IN ('gross', 'net_of_fees')),
            fee_fixed bigint NOT NULL CHECK (fee_fixed >= 0),
            fee_percent text NOT NULL,
            fee_borne_by text NOT NULL CHECK (fee_borne_by IN ('administrator', 'partner')),
            exposure_ceiling bigint CHECK (exposure_ceiling >= 0),
            warning_percent smallint NOT NULL CHECK (warning_percent BETWEEN 1 AND 100),
            prefund_warning bigint CHECK (prefund_warning >= 0),
            guarantor text,
            recorded_at timestamptz NOT NULL,
            CHECK (pays = 'gross' OR fee_borne_by = 'administrator')
        );
        CREATE INDEX settlement_terms_of ON products.settlement_terms (partner_id, programme_id, since, id);
        INSERT INTO products.settlement_terms
            SELECT gen_random_uuid(), pp.partner_id, pp.programme_id, '0001-01-01', pp.terms, g.currency, g.time_zone, 1440,
                   1, '{}', 'gross', 0, '0', 'partner', a.ceiling, 80, NULL, NULL, pp.joined_at
            FROM products.partner_programme pp
            JOIN products.partner p ON p.id = pp.partner_id AND p.kind = 'remitter'
            JOIN products.programme g ON g.id = pp.programme_id
            LEFT JOIN products.programme_fund f ON f.programme_id = g.id AND f.role = 'savers'
            LEFT JOIN ledger.account a ON a.fund_id = f.fund_id AND a.code = 'partner_receivable' AND a.owner = p.slug;
        GRANT SELECT, INSERT ON products.settlement_terms TO mizan_worker
    """)


def _contributions() -> None:
    op.execute("""
        -- collected_on: the day that it counts for by the partner's cut-off; fee: what of it the partner keeps;
        -- guaranteed: it was the member's to spend before the partner paid it in
        ALTER TABLE products.contribution
            ADD collected_on date,
            ADD fee bigint NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND amount),
            ADD guaranteed boolean NOT NULL DEFAULT false,
            ADD settlement_part integer;
        UPDATE products.contribution c
        SET collected_on = c.contributed_on,
            guaranteed = EXISTS (SELECT 1 FROM products.partner_programme pp WHERE pp.partner_id = c.partner_id
                                 AND pp.programme_id = c.programme_id AND pp.terms <> 'net'),
            settlement_part = CASE WHEN c.settlement_id IS NOT NULL THEN 1 END;
        ALTER TABLE products.contribution ALTER collected_on SET NOT NULL;
        CREATE INDEX contribution_settled
            ON products.contribution (settlement_id, settlement_part, remittance, position)
            WHERE settlement_id IS NOT NULL;
        -- what a partner collected of late; rows come roughly in this order, so that keeping it costs nothing
        CREATE INDEX contribution_day ON products.contribution USING brin (collected_on) WITH (pages_per_range = 32);
        -- parked_account: whose limit the remittance waits for, and parked_amount how much room it takes there
        ALTER TABLE products.remittance ADD parked_account uuid, ADD parked_amount bigint;
        -- what was parked before waited for the savers' fund's account: now it is looked at once, and says for which
        UPDATE products.remittance r SET parked_account = a.id, parked_amount = 0
        FROM products.partner p, products.programme_fund f, ledger.account a
        WHERE r.status = 'parked' AND r.reason IN ('partner_prefund_exhausted', 'partner_ceiling_reached')
          AND p.id = r.partner_id AND f.programme_id = r.programme_id AND f.role = 'savers' AND a.fund_id = f.fund_id
          AND a.owner = p.slug AND a.code = CASE r.reason WHEN 'partner_prefund_exhausted' THEN 'partner_prefund'
                                                          ELSE 'partner_receivable' END;
        CREATE INDEX remittance_no_room ON products.remittance (parked_account, contributed_at, id)
            WHERE parked_account IS NOT NULL AND status IN ('parked', 'unallocated')
    """)


def _settlements() -> None:
    op.execute(f"""
        -- amount + credits + fees = paired + unidentified + topped_up. A long one is paired part by part, each in a
        -- database transaction of its own: recorded → pairing → paired, and back: returning → returned.
        ALTER TABLE products.settlement
            ADD programme_id uuid REFERENCES products.programme,
            ADD kind text NOT NULL DEFAULT 'payment' CHECK (kind IN ('payment', 'default', 'fee')),
            ADD state text NOT NULL DEFAULT 'paired'
                CHECK (state IN ('recorded', 'pairing', 'paired', 'returning', 'returned')),
            ADD since date,
            ADD listed boolean NOT NULL DEFAULT false,
            ADD fees bigint NOT NULL DEFAULT 0,
            ADD credits bigint NOT NULL DEFAULT 0,
            ADD topped_up bigint NOT NULL DEFAULT 0,
            ADD parts integer NOT NULL DEFAULT 1,
            ADD effective_on date,
            ADD return_reason text,
            ADD returned_on date,
            ADD era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            ADD xid xid8 NOT NULL DEFAULT pg_current_xact_id();
        SELECT ledger.ensure_era();
        UPDATE products.settlement s
        SET programme_id = g.id, topped_up = s.amount - s.paired - s.unidentified,
            effective_on = (s.recorded_at AT TIME ZONE g.time_zone)::date
        FROM products.partner_programme pp JOIN products.programme g ON g.id = pp.programme_id
        WHERE pp.partner_id = s.partner_id AND g.currency = s.currency;
        ALTER TABLE products.settlement ALTER programme_id SET NOT NULL, ALTER effective_on SET NOT NULL;
        CREATE INDEX settlement_horizon ON products.settlement (era, xid, id);
        CREATE INDEX settlement_unfinished ON products.settlement (partner_id, programme_id, recorded_at, id)
            WHERE state IN ('recorded', 'pairing', 'returning');
        GRANT UPDATE (state, paired, unidentified, contributions, fees, credits, topped_up, parts, return_reason,
                      returned_on) ON products.settlement TO mizan_worker;
        -- a settlement is for one programme: who works in that one sees it
        DROP POLICY narrowed ON products.settlement;
        CREATE POLICY narrowed ON products.settlement AS RESTRICTIVE TO mizan_api
            USING ({_MEMBER} IS NULL AND {_IN_PROGRAMMES});

        -- What one database transaction paired, and its transaction of cash; taken back whole when the settlement is.
        CREATE TABLE products.settlement_part (
            settlement_id uuid NOT NULL REFERENCES products.settlement,
            number integer NOT NULL,
            contributions integer NOT NULL,
            paired bigint NOT NULL,
            cash uuid,
            paired_at timestamptz NOT NULL,
            returned_at timestamptz,
            PRIMARY KEY (settlement_id, number)
        );
        -- The remittances that a settlement was said to pay for, where it was said one by one.
        CREATE TABLE products.settlement_item (
            settlement_id uuid NOT NULL REFERENCES products.settlement,
            remittance uuid NOT NULL,
            PRIMARY KEY (settlement_id, remittance)
        );
        GRANT SELECT, INSERT ON products.settlement_part, products.settlement_item TO mizan_worker;
        GRANT UPDATE (returned_at) ON products.settlement_part TO mizan_worker;
        GRANT SELECT ON products.settlement_part, products.settlement_item TO mizan_auditor
    """)


def _credits() -> None:
    op.execute("""
        -- What a fund owes a partner: money that it paid in for what was reversed later. Signed entries, whose sum is what
        -- its next settlements may leave out: a reversal adds, netting takes.
        CREATE TABLE products.settlement_credit (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            programme_id uuid NOT NULL,
            fund_id uuid NOT NULL,
            currency char(3) NOT NULL,
            amount bigint NOT NULL CHECK (amount <> 0),
            reason text NOT NULL CHECK (reason IN ('reversed', 'netted', 'returned')),
            remittance uuid,
            position smallint,
            settlement_id uuid,
            settlement_part integer,
            recorded_at timestamptz NOT NULL
        );
        CREATE INDEX settlement_credit_of ON products.settlement_credit (partner_id, programme_id, fund_id);
        INSERT INTO products.settlement_credit
            SELECT gen_random_uuid(), c.partner_id, c.programme_id, c.fund_id, c.currency, c.amount, 'reversed', c.remittance,
                   c.position, c.settlement_id, 1, coalesce(r.reversed_at, r.recorded_at)
            FROM products.contribution c JOIN products.remittance r ON r.id = c.remittance
            WHERE c.settlement_id IS NOT NULL AND c.state = 'reversed'
              AND NOT (c.destination = 'unallocated' AND r.member_id IS NOT NULL);
        GRANT SELECT, INSERT ON products.settlement_credit TO mizan_worker
    """)


def _warnings() -> None:
    op.execute("""
        -- A partner came close to what it may owe, or its prefund runs low; one row for each crossing.
        CREATE TABLE products.partner_warning (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            programme_id uuid NOT NULL,
            account_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('exposure', 'prefund_low')),
            balance bigint NOT NULL,
            level bigint NOT NULL,
            raised_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE UNIQUE INDEX partner_warning_open ON products.partner_warning (account_id, kind) WHERE ended_at IS NULL;
        GRANT SELECT, INSERT ON products.partner_warning TO mizan_worker;
        GRANT UPDATE (ended_at) ON products.partner_warning TO mizan_worker
    """)
