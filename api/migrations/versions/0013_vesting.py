"""Vesting, forfeiture, grants at the end of a window, and what members have withdrawn by which way.

Revision 0013; follows 0012_payouts.
"""

from alembic import op

revision = "0013_vesting"
down_revision = "0012_payouts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Extend the match, and create the tables of what was withdrawn and forfeited."""
    _match()
    _withdrawals()


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _match() -> None:
    op.execute("""
        -- Match that the rule grants at the end of its window: from which day, and whether a job has seen that day.
        ALTER TABLE products.match_state
            ADD grants_on date,
            ADD window_over boolean NOT NULL DEFAULT false;
        CREATE INDEX match_state_grants ON products.match_state (grants_on)
            WHERE grants_on IS NOT NULL AND NOT window_over;

        -- forfeited: granted or promised, then lost; it counts as entitlement that has been met, so nothing grants it again.
        -- vests_on: when the vesting job has to look at it next.
        ALTER TABLE products.match_share
            ADD forfeited bigint NOT NULL DEFAULT 0 CHECK (forfeited >= 0),
            ADD vests_on date NOT NULL DEFAULT '0001-01-01';
        CREATE INDEX match_share_vests ON products.match_share (vests_on) WHERE unvested > 0;

        -- what of an approved fall the member had spent and so owes; minor units
        ALTER TABLE products.match_adjustment
            ADD owed bigint NOT NULL DEFAULT 0 CHECK (owed >= 0)
    """)


def _withdrawals() -> None:
    op.execute("""
        -- What a payout takes out of an enrolment, by which way out, from its request on. Undone when it isn't paid.
        CREATE TABLE products.withdrawal (
            payout_id uuid NOT NULL,
            enrolment_id uuid NOT NULL REFERENCES products.enrolment,
            way text NOT NULL,
            savings bigint NOT NULL CHECK (savings >= 0),
            match bigint NOT NULL CHECK (match >= 0),
            -- the match that is lost with it, as the member was told
            forfeits bigint NOT NULL CHECK (forfeits >= 0),
            taken_on date NOT NULL,
            recorded_at timestamptz NOT NULL,
            -- the money is out of the member's accounts; null again when it came back
            left_at timestamptz,
            undone_at timestamptz,
            PRIMARY KEY (payout_id, enrolment_id),
            CHECK (savings + match > 0)
        );
        CREATE INDEX withdrawal_enrolment ON products.withdrawal (enrolment_id) WHERE undone_at IS NULL;

        -- From whose match it was taken. received: what of it was granted and went where the programme says.
        CREATE TABLE products.forfeiture (
            payout_id uuid NOT NULL,
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            sponsor_id uuid NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            received bigint NOT NULL CHECK (received BETWEEN 0 AND amount),
            PRIMARY KEY (payout_id, enrolment_id, window_start, sponsor_id)
        );
        CREATE INDEX forfeiture_enrolment ON products.forfeiture (enrolment_id);
        GRANT SELECT, INSERT, UPDATE ON products.withdrawal TO mizan_worker;
        GRANT SELECT, INSERT, DELETE ON products.forfeiture TO mizan_worker;
        GRANT SELECT ON products.withdrawal, products.forfeiture TO mizan_api, mizan_auditor
    """)
    for table in ("withdrawal", "forfeiture"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY of_enrolment ON products.{table} TO mizan_api
                USING (EXISTS (SELECT FROM products.enrolment e WHERE e.id = {table}.enrolment_id));
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true)
        """)
