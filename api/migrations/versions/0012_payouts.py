"""Payouts and the rails that they travel on.

Payouts, their parts, attempts and changes are written by the worker's role alone; partners read their own (a payout by its
partner, what hangs on it through it), narrowed to one member or to single programmes as remittances are (0005). What rails
say is staff's to read. `integrations.simulated_payment` is the outside: the books of the simulated rail, not ours.
"""

from alembic import op

revision = "0012_payouts"
down_revision = "0011_operations"
branch_labels = None
depends_on = None

_PARTNER = "nullif(current_setting('mizan.partner', true), '')::uuid"
_STAFF = "current_setting('mizan.access', true) = 'staff'"
_MEMBER = "nullif(current_setting('mizan.member', true), '')::uuid"
_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_IN_PROGRAMMES = (
    f"({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)
_STATES = (
    "'requested', 'awaiting_member', 'awaiting_operators', 'approved', 'submitted', 'in_transit', 'unknown', 'paid',"
    " 'failed', 'returned', 'cancelled'"
)


def upgrade() -> None:
    """Create the tables."""
    _rails()
    _payouts()
    _what_rails_say()
    _access()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _rails() -> None:
    op.execute("""
        -- A way of paying out, as configured. Amounts are minor units; a limit that is null is none.
        CREATE TABLE products.rail (
            id uuid PRIMARY KEY,
            slug text NOT NULL UNIQUE,
            kind text NOT NULL CHECK (kind IN ('simulator', 'mobile_money', 'bank_file', 'stripe')),
            programme_id uuid NOT NULL REFERENCES products.programme,
            currency char(3) NOT NULL,
            payee_kinds text[] NOT NULL CHECK (payee_kinds <@ '{mobile_money,bank,card}' AND payee_kinds <> '{}'),
            checks_payees boolean NOT NULL,
            funded text NOT NULL CHECK (funded IN ('bank', 'float')),
            fee_fixed bigint NOT NULL CHECK (fee_fixed >= 0),
            fee_basis_points integer NOT NULL CHECK (fee_basis_points BETWEEN 0 AND 10000),
            fee_bearer text NOT NULL CHECK (fee_bearer IN ('member', 'fund')),
            arrival_unit text NOT NULL CHECK (arrival_unit IN ('minutes', 'business_days')),
            arrival_earliest integer NOT NULL CHECK (arrival_earliest >= 0),
            arrival_latest integer NOT NULL,
            arrival_countries text[] NOT NULL,
            amount_min bigint NOT NULL CHECK (amount_min > 0),
            amount_max bigint,
            per_member_day bigint CHECK (per_member_day > 0),
            per_day bigint CHECK (per_day > 0),
            release_above bigint CHECK (release_above >= 0),
            queue_max integer NOT NULL CHECK (queue_max > 0),
            options jsonb NOT NULL,
            fund_id uuid NOT NULL,
            clearing_account uuid NOT NULL,
            bank_account uuid NOT NULL,
            float_account uuid NOT NULL,
            charges_account uuid NOT NULL,
            fees_account uuid NOT NULL,
            created_at timestamptz NOT NULL,
            paused_at timestamptz,
            CHECK (arrival_latest >= arrival_earliest),
            CHECK (amount_max >= amount_min)
        );
        CREATE INDEX rail_programme ON products.rail (programme_id);

        -- The breaker of a rail, shared by all processes: closed while opened_at is null; probed by one after probe_at.
        CREATE TABLE products.rail_breaker (
            rail_id uuid PRIMARY KEY REFERENCES products.rail,
            failures integer NOT NULL DEFAULT 0,
            opened_at timestamptz,
            probe_at timestamptz,
            last_failure text
        );

        -- What of a rail's limit a day was asked for already, where it has such a limit.
        CREATE TABLE products.rail_day (
            rail_id uuid REFERENCES products.rail,
            day date,
            amount bigint NOT NULL CHECK (amount >= 0),
            PRIMARY KEY (rail_id, day)
        );

        -- A rail's own secrets (keys, passwords), one sealed JSON object.
        CREATE TABLE integrations.rail_secret (
            rail_id uuid PRIMARY KEY REFERENCES products.rail,
            sealed bytea NOT NULL,
            created_at timestamptz NOT NULL
        )
    """)


def _payouts() -> None:
    op.execute(f"""
        -- Money on its way to a payee. amount leaves the member's accounts; fee of it is what the member bears.
        CREATE TABLE products.payout (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            programme_id uuid NOT NULL,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            enrolment_id uuid,
            product text,
            way text,
            rail_id uuid NOT NULL REFERENCES products.rail,
            payee_id uuid NOT NULL REFERENCES products.payee,
            amount bigint NOT NULL CHECK (amount > 0),
            fee bigint NOT NULL CHECK (fee >= 0),
            rail_fee bigint NOT NULL CHECK (rail_fee >= 0),
            currency char(3) NOT NULL,
            arrival_earliest timestamptz NOT NULL,
            arrival_latest timestamptz NOT NULL,
            state text NOT NULL CHECK (state IN ({_STATES})),
            reason text,
            payee_name text NOT NULL DEFAULT 'not_checked'
                CHECK (payee_name IN ('not_checked', 'matches', 'differs')),
            problem text,
            changes smallint NOT NULL,
            requested_by text NOT NULL,
            requested_at timestamptz NOT NULL,
            requested_on date NOT NULL,
            expires_at timestamptz NOT NULL,
            check_after timestamptz,
            approved_at timestamptz,
            proof uuid,
            submitted_at timestamptz,
            ended_at timestamptz,
            era smallint NOT NULL DEFAULT 1,
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            CHECK (fee < amount),
            CHECK ((enrolment_id IS NULL) = (product IS NULL))
        ) WITH (fillfactor = 70);
        CREATE INDEX payout_horizon ON products.payout (partner_id, era, xid, id);
        CREATE INDEX payout_of_member ON products.payout (member_id, requested_on);
        CREATE INDEX payout_checks ON products.payout (rail_id, check_after) WHERE state = 'requested';
        CREATE INDEX payout_queue ON products.payout (rail_id, approved_at, id) WHERE state = 'approved';
        CREATE INDEX payout_expiry ON products.payout (expires_at)
            WHERE state IN ('requested', 'awaiting_member', 'awaiting_operators');
        CREATE INDEX payout_out ON products.payout (rail_id) WHERE state IN ('submitted', 'in_transit', 'unknown');
        CREATE INDEX payout_problem ON products.payout (id) WHERE problem IS NOT NULL;

        -- From which of the member's accounts it is taken; fee of amount goes to fees payable.
        CREATE TABLE products.payout_part (
            payout_id uuid REFERENCES products.payout,
            position smallint,
            source text NOT NULL CHECK (source IN ('savings', 'match_vested', 'unapplied')),
            account_id uuid NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            fee bigint NOT NULL CHECK (fee BETWEEN 0 AND amount),
            hold_id uuid NOT NULL,
            PRIMARY KEY (payout_id, position)
        );

        -- One sending of a payout under one id, which the rail knows it by, however often that is repeated.
        -- doubtful: some sending of it may have arrived although its answer was not seen.
        CREATE TABLE products.payout_attempt (
            id uuid PRIMARY KEY,
            payout_id uuid NOT NULL REFERENCES products.payout,
            number smallint NOT NULL CHECK (number > 0),
            rail_id uuid NOT NULL,
            batch_id uuid NOT NULL,
            asked_on date NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            state text NOT NULL CHECK (state IN ('sending', 'not_sent', 'unknown', 'accepted', 'in_transit', 'paid',
                'failed', 'returned')),
            doubtful boolean NOT NULL DEFAULT false,
            sendings smallint NOT NULL,
            sent_at timestamptz NOT NULL,
            asked smallint NOT NULL DEFAULT 0,
            next_at timestamptz,
            rail_reference text,
            reason text,
            code text,
            reported_at timestamptz,
            rail_fee bigint,
            money text NOT NULL CHECK (money IN ('clearing', 'out', 'back')),
            UNIQUE (payout_id, number)
        ) WITH (fillfactor = 70);
        CREATE INDEX payout_attempt_due ON products.payout_attempt (rail_id, next_at) WHERE next_at IS NOT NULL;
        CREATE INDEX payout_attempt_reference ON products.payout_attempt (rail_id, rail_reference)
            WHERE rail_reference IS NOT NULL;
        CREATE INDEX payout_attempt_batch ON products.payout_attempt (batch_id);

        -- The states that a payout went through.
        CREATE TABLE products.payout_change (
            payout_id uuid REFERENCES products.payout,
            number smallint,
            state text NOT NULL CHECK (state IN ({_STATES})),
            reason text,
            actor text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (payout_id, number)
        );
        -- what partners collected for members, fitted no product, and is not paid in: it can't be paid out yet
        CREATE INDEX contribution_unapplied ON products.contribution (member_id)
            WHERE destination = 'unapplied' AND owed
    """)


def _what_rails_say() -> None:
    op.execute("""
        -- What came in on a rail's hook, sealed under the day's key of the inbox.
        CREATE TABLE integrations.rail_callback (
            id uuid PRIMARY KEY,
            rail_id uuid NOT NULL REFERENCES products.rail,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            body_sealed bytea NOT NULL,
            inbox_key_id uuid NOT NULL,
            readable boolean NOT NULL,
            received_at timestamptz NOT NULL,
            times integer NOT NULL DEFAULT 1,
            UNIQUE (rail_id, digest)
        );
        CREATE INDEX rail_callback_inbox_key ON integrations.rail_callback (inbox_key_id);

        -- What a rail said, where it is more than the answer that was asked for: evidence, and what nothing was known for.
        CREATE TABLE products.rail_report (
            id uuid PRIMARY KEY,
            rail_id uuid NOT NULL REFERENCES products.rail,
            callback_id uuid,
            source text NOT NULL CHECK (source IN ('answer', 'callback', 'file', 'hand')),
            attempt_id uuid,
            payout_id uuid,
            rail_reference text,
            said text NOT NULL,
            reason text,
            code text,
            at timestamptz,
            amount bigint,
            currency char(3),
            fee bigint,
            outcome text NOT NULL CHECK (outcome IN ('applied', 'repeated', 'outdated', 'unmatched', 'contradicts')),
            problem text,
            received_at timestamptz NOT NULL
        );
        CREATE INDEX rail_report_outcome ON products.rail_report (rail_id, outcome, id);
        CREATE INDEX rail_report_payout ON products.rail_report (payout_id) WHERE payout_id IS NOT NULL;
        CREATE INDEX rail_report_unmatched ON products.rail_report (rail_id, rail_reference)
            WHERE outcome = 'unmatched';

        -- The simulated rail's own record of payments: what the outside would know.
        CREATE TABLE integrations.simulated_payment (
            attempt_id uuid PRIMARY KEY,
            rail text NOT NULL,
            batch_id uuid NOT NULL,
            reference text NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            currency char(3) NOT NULL,
            script smallint NOT NULL,
            sendings smallint NOT NULL,
            made_at timestamptz NOT NULL
        );
        CREATE INDEX simulated_payment_made ON integrations.simulated_payment (rail, made_at)
    """)


def _access() -> None:
    op.execute(f"""
        GRANT SELECT ON products.rail, products.rail_breaker, products.payout, products.payout_part,
            products.payout_attempt, products.payout_change, products.rail_report TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT, UPDATE ON products.rail_breaker, products.rail_day, products.rail_report, products.payout,
            products.payout_attempt TO mizan_worker;
        GRANT SELECT, INSERT ON products.rail, products.payout_part, products.payout_change,
            integrations.rail_secret, integrations.rail_callback TO mizan_worker;
        GRANT UPDATE (paused_at, options, payee_kinds, fee_fixed, fee_basis_points, fee_bearer, arrival_unit,
            arrival_earliest, arrival_latest, arrival_countries, amount_min, amount_max, per_member_day, per_day,
            release_above, queue_max) ON products.rail TO mizan_worker;
        GRANT UPDATE (sealed) ON integrations.rail_secret TO mizan_worker;
        GRANT UPDATE (times) ON integrations.rail_callback TO mizan_worker;
        GRANT SELECT, INSERT, UPDATE ON integrations.simulated_payment TO mizan_worker;
        GRANT SELECT ON products.rail_day, integrations.simulated_payment TO mizan_auditor;

        ALTER TABLE products.payout ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.payout USING (partner_id = {_PARTNER} OR {_STAFF});
        CREATE POLICY narrowed ON products.payout AS RESTRICTIVE TO mizan_api
            USING (({_MEMBER} IS NULL OR member_id = (SELECT products.seen_member())) AND {_IN_PROGRAMMES});
        CREATE POLICY auditor ON products.payout FOR SELECT TO mizan_auditor USING (true);

        ALTER TABLE products.rail ENABLE ROW LEVEL SECURITY;
        CREATE POLICY of_programme ON products.rail TO mizan_api
            USING ({_IN_PROGRAMMES} AND ({_STAFF} OR EXISTS (
                SELECT FROM products.partner_programme j WHERE j.programme_id = rail.programme_id)));
        CREATE POLICY auditor ON products.rail FOR SELECT TO mizan_auditor USING (true);

        ALTER TABLE products.rail_report ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.rail_report TO mizan_api
            USING ({_STAFF} AND EXISTS (SELECT FROM products.rail r WHERE r.id = rail_report.rail_id));
        CREATE POLICY auditor ON products.rail_report FOR SELECT TO mizan_auditor USING (true)
    """)
    for table in ("payout_part", "payout_attempt", "payout_change"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY of_payout ON products.{table} TO mizan_api
                USING (EXISTS (SELECT FROM products.payout p WHERE p.id = {table}.payout_id));
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true)
        """)
    op.execute("""
        ALTER TABLE products.rail_breaker ENABLE ROW LEVEL SECURITY;
        CREATE POLICY of_rail ON products.rail_breaker TO mizan_api
            USING (EXISTS (SELECT FROM products.rail r WHERE r.id = rail_breaker.rail_id));
        CREATE POLICY auditor ON products.rail_breaker FOR SELECT TO mizan_auditor USING (true)
    """)
