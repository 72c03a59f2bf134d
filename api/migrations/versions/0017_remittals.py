"""Remittals to agencies, with their schedules and answers.

A line is what one enrolment paid for one month; a contribution names the line that it travels in. Agencies' numbers and
the pay that a line was computed from rest under the member's own key.
"""

from alembic import op

revision = "0017_remittals"
down_revision = "0016_claim_packs"
branch_labels = None
depends_on = None

_STAFF_ALONE = "current_setting('mizan.access', true) = 'staff'"
_PARTNER = "nullif(current_setting('mizan.partner', true), '')::uuid"
_MEMBER = "nullif(current_setting('mizan.member', true), '')::uuid"
_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_IN_PROGRAMMES = (
    f"({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)
_OWN_ROWS = f"(partner_id = {_PARTNER} OR {_STAFF_ALONE})"
_STAFF = (
    "nullif(current_setting('mizan.access', true), '') = 'staff'"
    f" AND ({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)


def upgrade() -> None:
    """Create the tables."""
    op.execute(f"""
        ALTER TABLE products.contribution ADD remittal_line uuid;
        -- what an agency has not been sent
        CREATE INDEX contribution_to_remit ON products.contribution (fund_id, contributed_on)
            WHERE destination = 'agency' AND remittal_line IS NULL;

        -- How an agency wants to be told; one that has no row is told in Mizan's own columns.
        CREATE TABLE products.agency (
            programme_id uuid NOT NULL REFERENCES products.programme,
            code text NOT NULL,
            number_document text NOT NULL,
            without_number text NOT NULL CHECK (without_number IN ('hold', 'send')),
            second_person_above bigint NOT NULL CHECK (second_person_above >= 0),
            columns jsonb NOT NULL,
            answer jsonb NOT NULL,
            changed_at timestamptz NOT NULL,
            PRIMARY KEY (programme_id, code)
        );

        CREATE TABLE products.remittal (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            agency text NOT NULL,
            number integer NOT NULL,
            fund_id uuid NOT NULL,
            currency char(3) NOT NULL,
            through date NOT NULL,
            lines integer NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            columns jsonb NOT NULL,
            answer jsonb NOT NULL,
            second_person_above bigint NOT NULL,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            state text NOT NULL DEFAULT 'made' CHECK (state IN ('made', 'sent', 'cleared', 'withdrawn')),
            made_at timestamptz NOT NULL,
            bank_reference text,
            sent_on date,
            sent_at timestamptz,
            cleared_on date,
            cleared_at timestamptz,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            UNIQUE (programme_id, agency, number)
        );
        CREATE INDEX remittal_horizon ON products.remittal (era, xid, id);

        CREATE TABLE products.remittal_line (
            id uuid PRIMARY KEY,
            remittal_id uuid NOT NULL,
            position integer NOT NULL,
            programme_id uuid NOT NULL,
            partner_id uuid NOT NULL,
            member_id uuid NOT NULL,
            enrolment_id uuid NOT NULL,
            product text NOT NULL,
            applies_to date NOT NULL,
            paid_on date NOT NULL,
            number bytea,
            base bytea,
            rate text,
            amount bigint NOT NULL CHECK (amount > 0),
            state text NOT NULL DEFAULT 'sent' CHECK (state IN ('sent', 'accepted', 'rejected', 'corrected')),
            accepted bigint,
            claimed bigint NOT NULL DEFAULT 0 CHECK (claimed >= 0),
            reason text,
            corrected_number bytea,
            answered_at timestamptz,
            CHECK ((state = 'sent') = (accepted IS NULL)),
            UNIQUE (remittal_id, position)
        );
        CREATE INDEX remittal_line_member ON products.remittal_line (member_id);

        CREATE TABLE products.remittal_answer (
            remittal_id uuid NOT NULL REFERENCES products.remittal,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            programme_id uuid NOT NULL,
            lines integer NOT NULL,
            accepted bigint NOT NULL,
            returned bigint NOT NULL,
            claimed bigint NOT NULL,
            recorded_at timestamptz NOT NULL,
            PRIMARY KEY (remittal_id, digest)
        );

        ALTER TABLE products.agency ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.remittal ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.remittal_answer ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.remittal_line ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.agency TO mizan_api USING ({_STAFF});
        CREATE POLICY staff ON products.remittal TO mizan_api USING ({_STAFF});
        CREATE POLICY staff ON products.remittal_answer TO mizan_api USING ({_STAFF});
        CREATE POLICY own_rows ON products.remittal_line USING {_OWN_ROWS};
        CREATE POLICY narrowed ON products.remittal_line AS RESTRICTIVE TO mizan_api
            USING (({_MEMBER} IS NULL OR member_id = (SELECT products.seen_member())) AND {_IN_PROGRAMMES});
        CREATE POLICY auditor ON products.agency FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.remittal FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.remittal_answer FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.remittal_line FOR SELECT TO mizan_auditor USING (true);
        GRANT SELECT ON products.agency, products.remittal, products.remittal_answer, products.remittal_line
            TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT ON products.agency, products.remittal, products.remittal_answer, products.remittal_line
            TO mizan_worker;
        GRANT UPDATE (number_document, without_number, second_person_above, columns, answer, changed_at)
            ON products.agency TO mizan_worker;
        GRANT UPDATE (state, bank_reference, sent_on, sent_at, cleared_on, cleared_at)
            ON products.remittal TO mizan_worker;
        GRANT UPDATE (state, accepted, claimed, reason, corrected_number, answered_at)
            ON products.remittal_line TO mizan_worker
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
