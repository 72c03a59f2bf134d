"""The tables of schema `products`: programmes, partners, sponsors, the registry, remittances, match.

Revision 0002; follows 0001_ledger. Grants and row-level security stand beside the tables they guard.
"""

from alembic import op

revision = "0002_products"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None

# A row is visible to the partner that the request speaks for, or to staff. Unset means nobody.
OWN_ROWS = """(partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) = 'staff')"""


def upgrade() -> None:
    """Create schema `products` and everything in it."""
    op.execute("CREATE SCHEMA IF NOT EXISTS products")
    op.execute("GRANT USAGE ON SCHEMA products TO mizan_api, mizan_worker, mizan_auditor, mizan_sealer")
    _programmes()
    _partners()
    _sponsors()
    _registry()
    _remittances()
    _match()
    _settlements()
    op.execute("GRANT SELECT ON ALL TABLES IN SCHEMA products TO mizan_auditor")
    # Auditors read every row. Personal fields stay closed to them: they rest encrypted, and auditors hold no key.
    op.execute("""
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT relname FROM pg_class
                        WHERE relnamespace = 'products'::regnamespace AND relrowsecurity LOOP
                EXECUTE format('CREATE POLICY auditor ON products.%I FOR SELECT TO mizan_auditor USING (true)', name);
            END LOOP;
        END $$
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("a baseline has no way down: restore a backup instead")


def _programmes() -> None:
    op.execute("""
        CREATE TABLE products.programme (
            id uuid PRIMARY KEY,
            slug text NOT NULL UNIQUE,
            name text NOT NULL,
            currency char(3) NOT NULL,
            time_zone text NOT NULL,
            created_at timestamptz NOT NULL
        );
        CREATE TABLE products.programme_version (
            programme_id uuid NOT NULL REFERENCES products.programme,
            version integer NOT NULL CHECK (version > 0),
            digest bytea NOT NULL,
            source text NOT NULL,
            in_force_from date NOT NULL,
            applies_to text NOT NULL CHECK (applies_to IN ('new_windows', 'open_windows', 'since')),
            applied_at timestamptz NOT NULL,
            reevaluated boolean NOT NULL DEFAULT false,
            PRIMARY KEY (programme_id, version)
        );
        -- role: savers, agency, pool:<product>
        CREATE TABLE products.programme_fund (
            programme_id uuid NOT NULL REFERENCES products.programme,
            role text NOT NULL,
            fund_id uuid NOT NULL UNIQUE,
            PRIMARY KEY (programme_id, role)
        );
        CREATE FUNCTION products.refuse_version_change() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND (NEW.programme_id, NEW.version, NEW.digest, NEW.source, NEW.in_force_from,
                                     NEW.applies_to, NEW.applied_at)
                IS NOT DISTINCT FROM (OLD.programme_id, OLD.version, OLD.digest, OLD.source, OLD.in_force_from,
                                      OLD.applies_to, OLD.applied_at) THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'a programme version is immutable once applied' USING ERRCODE = 'MZ101';
        END $$;
        CREATE TRIGGER version_is_immutable BEFORE UPDATE OR DELETE ON products.programme_version
            FOR EACH ROW EXECUTE FUNCTION products.refuse_version_change();
        GRANT SELECT, INSERT ON products.programme, products.programme_version, products.programme_fund
            TO mizan_worker;
        GRANT UPDATE (reevaluated) ON products.programme_version TO mizan_worker;
        GRANT SELECT ON products.programme, products.programme_version, products.programme_fund TO mizan_api
    """)


def _partners() -> None:
    op.execute(f"""
        CREATE TABLE products.partner (
            id uuid PRIMARY KEY,
            slug text NOT NULL UNIQUE,
            name text NOT NULL,
            format text NOT NULL,
            state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
            created_at timestamptz NOT NULL
        );
        CREATE TABLE products.partner_programme (
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            terms text NOT NULL CHECK (terms IN ('net', 'prefunded', 'guaranteed')),
            collection text NOT NULL CHECK (collection IN ('as_reported', 'by_quote', 'by_rule')),
            joined_at timestamptz NOT NULL,
            PRIMARY KEY (partner_id, programme_id)
        );
        GRANT SELECT, INSERT ON products.partner, products.partner_programme TO mizan_worker;
        GRANT UPDATE ON products.partner, products.partner_programme TO mizan_worker;
        -- on which terms a partner works is its own affair
        ALTER TABLE products.partner_programme ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.partner_programme USING {OWN_ROWS};
        GRANT SELECT ON products.partner, products.partner_programme TO mizan_api
    """)


def _sponsors() -> None:
    op.execute("""
        CREATE TABLE products.sponsor (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            slug text NOT NULL,
            name text NOT NULL,
            funding text NOT NULL CHECK (funding IN ('prefunded', 'arrears')),
            fund_id uuid NOT NULL,
            uncommitted_account uuid NOT NULL,
            committed_account uuid NOT NULL,
            receivable_account uuid NOT NULL,
            queueing boolean NOT NULL,
            UNIQUE (programme_id, slug)
        );
        GRANT SELECT, INSERT, UPDATE ON products.sponsor TO mizan_worker;
        GRANT SELECT ON products.sponsor TO mizan_api
    """)


def _registry() -> None:
    op.execute(f"""
        -- A person in one programme. Every personal field is encrypted under the member's own key, kept here wrapped
        -- by a master key; erasure sets wrapped_key to null and leaves the pseudonym that the books know.
        CREATE TABLE products.member (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            wrapped_key bytea,
            birth_date bytea,
            sex bytea,
            origin_country bytea,
            residence_country bytea,
            registered_at timestamptz NOT NULL,
            erased_at timestamptz,
            -- ledger accounts: products.chart.MemberAccounts
            unapplied_account uuid NOT NULL,
            receivable_account uuid NOT NULL,
            CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL))
        );

        -- What one partner knows of a member; its id is the mem_ id that this partner sees, and no other partner.
        -- The blind indexes are keyed and taken per partner, so rows of two partners can't be matched by them.
        CREATE TABLE products.member_link (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            member_id uuid NOT NULL REFERENCES products.member DEFERRABLE INITIALLY DEFERRED,
            phone bytea,
            phone_index bytea,
            partner_reference bytea,
            partner_reference_index bytea,
            linked_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX member_link_member ON products.member_link (member_id);
        CREATE UNIQUE INDEX member_link_phone ON products.member_link (partner_id, phone_index, programme_id)
            WHERE ended_at IS NULL;
        CREATE UNIQUE INDEX member_link_reference
            ON products.member_link (partner_id, partner_reference_index, programme_id) WHERE ended_at IS NULL;

        -- Dated, added and never overwritten: the latest recorded one of a name and a date stands.
        CREATE TABLE products.member_fact (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            name text NOT NULL,
            value bytea NOT NULL,
            since date NOT NULL,
            evidence text NOT NULL CHECK (evidence IN ('self_declared', 'document', 'institution')),
            recorded_at timestamptz NOT NULL
        );
        CREATE INDEX member_fact_member ON products.member_fact (member_id);

        -- The member's mandate, as given through one partner. Without one in force nothing is deducted. A mandate that
        -- is resumed after a pause ends at the pause and a new row begins, so that what was in force when stays known.
        CREATE TABLE products.consent (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            text_version text NOT NULL,
            language text NOT NULL,
            evidence bytea,
            limit_per_month bigint CHECK (limit_per_month > 0),
            limit_currency char(3),
            given_at timestamptz NOT NULL,
            paused_at timestamptz,
            withdrawn_at timestamptz,
            CHECK ((limit_per_month IS NULL) = (limit_currency IS NULL))
        );
        CREATE UNIQUE INDEX consent_in_force ON products.consent (member_id, partner_id) WHERE withdrawn_at IS NULL;

        -- terms: what the rules fixed at entry (a rate by the age at entry, say), decided once and kept.
        CREATE TABLE products.enrolment (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            member_id uuid NOT NULL REFERENCES products.member,
            partner_id uuid NOT NULL REFERENCES products.partner,
            product text NOT NULL,
            several boolean NOT NULL,
            choice jsonb NOT NULL,
            terms jsonb NOT NULL,
            rule_version integer NOT NULL,
            enrolled_at timestamptz NOT NULL,
            enrolled_on date NOT NULL,
            ended_at timestamptz,
            -- ledger accounts of a savings product: products.chart.EnrolmentAccounts; null for an agency or a pool
            pending_account uuid,
            savings_account uuid,
            unvested_account uuid,
            vested_account uuid
        );
        CREATE UNIQUE INDEX enrolment_active ON products.enrolment (member_id, product)
            WHERE ended_at IS NULL AND NOT several;
        CREATE INDEX enrolment_member ON products.enrolment (member_id);

        ALTER TABLE products.member ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.member_link ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.member_fact ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.consent ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.enrolment ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.member_link USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.member_fact USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.consent USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.enrolment USING {OWN_ROWS};
        -- the subquery is itself under member_link's policy: a member is visible through a link that is
        CREATE POLICY linked_rows ON products.member
            USING (EXISTS (SELECT 1 FROM products.member_link l WHERE l.member_id = member.id));

        GRANT SELECT, INSERT ON products.member, products.member_link, products.member_fact, products.consent,
            products.enrolment TO mizan_api, mizan_worker;
        GRANT UPDATE (residence_country) ON products.member TO mizan_api;
        GRANT UPDATE (wrapped_key, erased_at) ON products.member TO mizan_worker;
        GRANT UPDATE (ended_at) ON products.member_link, products.enrolment TO mizan_api, mizan_worker;
        GRANT UPDATE (phone, phone_index, partner_reference, partner_reference_index) ON products.member_link
            TO mizan_worker;
        GRANT UPDATE (paused_at, withdrawn_at) ON products.consent TO mizan_api, mizan_worker
    """)


def _remittances() -> None:
    op.execute(f"""
        -- One row per (partner, remittance_id), inserted by whichever of original and reversal comes first: upserting
        -- it is the lock that makes the two see each other. Narrow, so that the full row is written once, decided.
        -- No foreign keys on what every event writes: checked row by row they halve the pipeline and lock one partner's row
        -- from every worker. `products.checks` verifies what they would have.
        CREATE TABLE products.remittance_claim (
            partner_id uuid NOT NULL,
            remittance_id text COLLATE "C" NOT NULL,
            id uuid NOT NULL,
            PRIMARY KEY (partner_id, remittance_id)
        ) WITH (fillfactor = 80);
        CREATE TABLE products.remittance (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL,
            remittance_id text COLLATE "C" NOT NULL,
            status text NOT NULL
                CHECK (status IN ('posted', 'reversed', 'unallocated', 'parked', 'awaiting_original')),
            reason text,
            digest bytea,
            programme_id uuid,
            rule_version integer,
            member_id uuid,
            link_id uuid,
            member_key bytea,
            sent_amount bigint, sent_currency char(3),
            received_amount bigint, received_currency char(3),
            fee_amount bigint, fee_currency char(3),
            collected_amount bigint, collected_currency char(3),
            origin_country char(2), destination_country char(2),
            contributed_at timestamptz,
            unapplied bigint NOT NULL DEFAULT 0,
            transaction_id uuid,
            reversed_at timestamptz,
            reversal_reason text,
            reversal_transaction_id uuid,
            quote_id uuid,
            delivery_id uuid,
            trace json,
            recorded_at timestamptz NOT NULL,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id()
        ) WITH (fillfactor = 90);
        CREATE INDEX remittance_horizon ON products.remittance (partner_id, era, xid, id);
        CREATE INDEX remittance_unallocated ON products.remittance (partner_id, member_key)
            WHERE status = 'unallocated';
        CREATE INDEX remittance_parked ON products.remittance (partner_id, id) WHERE status = 'parked';

        -- Each part of what was collected, and where it went.
        CREATE TABLE products.contribution (
            remittance uuid NOT NULL,
            position smallint NOT NULL,
            partner_id uuid NOT NULL,
            programme_id uuid NOT NULL,
            destination text NOT NULL CHECK (destination IN ('savers', 'agency', 'pool', 'unapplied', 'unallocated')),
            product text,
            enrolment_id uuid,
            member_id uuid,
            fund_id uuid NOT NULL,
            debited_account uuid NOT NULL,
            credited_account uuid NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            currency char(3) NOT NULL,
            contributed_at timestamptz NOT NULL,
            contributed_on date NOT NULL,
            window_start date,
            tier smallint,
            entitled bigint NOT NULL DEFAULT 0,
            state text NOT NULL CHECK (state IN ('pending', 'settled', 'reversed')),
            owed boolean NOT NULL,
            settlement_id uuid,
            PRIMARY KEY (remittance, position)
        ) WITH (fillfactor = 90);
        -- what a partner has collected and not yet paid in, oldest first
        CREATE INDEX contribution_owed ON products.contribution (partner_id, currency, contributed_at, remittance, position)
            WHERE owed;
        CREATE INDEX contribution_window ON products.contribution (enrolment_id, window_start)
            WHERE enrolment_id IS NOT NULL;

        CREATE TABLE products.quote (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL,
            rule_version integer NOT NULL,
            link_id uuid NOT NULL,
            member_id uuid NOT NULL,
            sent_amount bigint NOT NULL, sent_currency char(3) NOT NULL,
            received_amount bigint NOT NULL, received_currency char(3) NOT NULL,
            collect bigint NOT NULL, collect_currency char(3) NOT NULL,
            answer jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            used_by uuid
        );

        ALTER TABLE products.remittance_claim ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.remittance ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.contribution ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.quote ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.remittance_claim USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.remittance USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.contribution USING {OWN_ROWS};
        CREATE POLICY own_rows ON products.quote USING {OWN_ROWS};
        GRANT SELECT, INSERT, UPDATE ON products.remittance_claim, products.remittance, products.contribution,
            products.quote TO mizan_worker;
        GRANT SELECT ON products.remittance_claim, products.remittance, products.contribution TO mizan_api;
        GRANT SELECT, INSERT ON products.quote TO mizan_api
    """)


def _match() -> None:
    op.execute("""
        -- Entitlement of one enrolment in one window, derived from totals per tier (element 1: unmatched, then tier 0…).
        CREATE TABLE products.match_state (
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            window_end date NOT NULL,
            by_tier bigint[] NOT NULL,
            settled_by_tier bigint[] NOT NULL,
            entitled bigint NOT NULL CHECK (entitled >= 0),
            rule_version integer NOT NULL,
            revision integer NOT NULL,
            PRIMARY KEY (enrolment_id, window_start)
        ) WITH (fillfactor = 70);
        CREATE TABLE products.match_share (
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            sponsor_id uuid NOT NULL,
            committed bigint NOT NULL CHECK (committed >= 0),
            unvested bigint NOT NULL CHECK (unvested >= 0),
            vested bigint NOT NULL CHECK (vested >= 0),
            awaiting bigint NOT NULL CHECK (awaiting >= 0),
            PRIMARY KEY (enrolment_id, window_start, sponsor_id)
        ) WITH (fillfactor = 70);
        -- Entitlement that waits for its sponsor's money, served by one drainer per sponsor.
        CREATE TABLE products.match_queue (
            id uuid PRIMARY KEY,
            sponsor_id uuid NOT NULL,
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            contributed_at timestamptz NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0)
        );
        CREATE INDEX match_queue_order ON products.match_queue (sponsor_id, contributed_at, id);
        CREATE INDEX match_queue_of_share ON products.match_queue (enrolment_id, window_start, sponsor_id);
        -- What a member vested never falls by itself: the difference waits here for approval.
        CREATE TABLE products.match_adjustment (
            id uuid PRIMARY KEY,
            sponsor_id uuid NOT NULL,
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            reason text NOT NULL,
            state text NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'approved', 'refused', 'withdrawn')),
            recorded_at timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX match_adjustment_proposed
            ON products.match_adjustment (enrolment_id, window_start, sponsor_id) WHERE state = 'proposed';
        -- Members whose facts changed: what their windows earn is derived anew by a job, once no batch that judged by
        -- the facts of before is still under way.
        CREATE TABLE products.reevaluation (
            id uuid PRIMARY KEY,
            member_id uuid NOT NULL,
            requested_at timestamptz NOT NULL,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id()
        );
        GRANT INSERT (id, member_id, requested_at) ON products.reevaluation TO mizan_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON products.reevaluation TO mizan_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON products.match_queue TO mizan_worker;
        GRANT SELECT, INSERT, UPDATE ON products.match_state, products.match_share, products.match_adjustment
            TO mizan_worker;
        GRANT SELECT ON products.match_queue, products.match_state, products.match_share, products.match_adjustment
            TO mizan_api
    """)


def _settlements() -> None:
    op.execute(f"""
        CREATE TABLE products.settlement (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            currency char(3) NOT NULL,
            amount bigint NOT NULL CHECK (amount > 0),
            through date NOT NULL,
            reference text NOT NULL,
            paired bigint NOT NULL,
            unidentified bigint NOT NULL,
            contributions integer NOT NULL,
            recorded_at timestamptz NOT NULL,
            UNIQUE (partner_id, reference)
        );
        ALTER TABLE products.settlement ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_rows ON products.settlement USING {OWN_ROWS};
        GRANT SELECT, INSERT ON products.settlement TO mizan_worker;
        GRANT SELECT ON products.settlement TO mizan_api
    """)
