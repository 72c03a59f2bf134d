"""Claims of sponsors in arrears, certified in packs; how much a sponsor has left before it is warned.

A pack is signed when it is made: its lines never change, and only those of a new one are added. What a sponsor has
certified of a share is kept with the share, as it doesn't fall by itself.
"""

from alembic import op

revision = "0016_claim_packs"
down_revision = "0015_settlement_files"
branch_labels = None
depends_on = None

STAFF = (
    "nullif(current_setting('mizan.access', true), '') = 'staff'"
    " AND (nullif(current_setting('mizan.programmes', true), '') IS NULL OR programme_id ="
    " ANY (string_to_array(nullif(current_setting('mizan.programmes', true), ''), ',')::uuid[]))"
)


def upgrade() -> None:
    """Create the tables."""
    op.execute(f"""
        -- warn_percent: of what it had after it last paid in; below it the sponsor is warned, once (warned_at)
        ALTER TABLE products.sponsor
            ADD warn_percent smallint NOT NULL DEFAULT 20 CHECK (warn_percent BETWEEN 0 AND 100),
            ADD filled_to bigint NOT NULL DEFAULT 0,
            ADD warned_at timestamptz;
        -- certified: what of the share a sponsor in arrears has certified; only an approved adjustment lowers it
        ALTER TABLE products.match_share ADD certified bigint NOT NULL DEFAULT 0 CHECK (certified >= 0);
        -- certified: how much of an approved fall was certified, and so went back to the sponsor's receivable
        ALTER TABLE products.match_adjustment
            ADD certified bigint NOT NULL DEFAULT 0 CHECK (certified >= 0),
            ADD decided_at timestamptz;

        CREATE TABLE products.claim_pack (
            id uuid PRIMARY KEY,
            programme_id uuid NOT NULL REFERENCES products.programme,
            sponsor_id uuid NOT NULL REFERENCES products.sponsor,
            number integer NOT NULL,
            currency char(3) NOT NULL,
            since date,
            through date NOT NULL,
            lines integer NOT NULL,
            adjustments integer NOT NULL,
            claimed bigint NOT NULL,
            adjusted bigint NOT NULL,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            key_id text NOT NULL,
            public_key bytea NOT NULL CHECK (length(public_key) = 32),
            signature bytea NOT NULL CHECK (length(signature) = 64),
            made_at timestamptz NOT NULL,
            state text NOT NULL DEFAULT 'made' CHECK (state IN ('made', 'certified', 'withdrawn')),
            certification text,
            certified_on date,
            certified_at timestamptz,
            -- a certified pack is posted in sets: how many of its lines are, and when the last was
            booked_lines integer NOT NULL DEFAULT 0,
            booked_at timestamptz,
            era smallint NOT NULL DEFAULT 1, -- ledger.ensure_era keeps it
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            UNIQUE (sponsor_id, number),
            CHECK ((state = 'certified') = (certified_at IS NOT NULL))
        );
        -- one at a time, so that nothing is claimed twice
        CREATE UNIQUE INDEX claim_pack_open ON products.claim_pack (sponsor_id)
            WHERE state = 'made' OR state = 'certified' AND booked_at IS NULL;
        CREATE INDEX claim_pack_horizon ON products.claim_pack (era, xid, id);

        -- member, account: pseudonyms of the member and the enrolment that this sponsor alone is told
        CREATE TABLE products.claim_line (
            pack_id uuid NOT NULL REFERENCES products.claim_pack,
            position integer NOT NULL,
            programme_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('match', 'adjustment')),
            enrolment_id uuid NOT NULL,
            window_start date NOT NULL,
            window_end date NOT NULL,
            product text NOT NULL,
            member text NOT NULL,
            account text NOT NULL,
            contributions integer NOT NULL,
            contributed bigint NOT NULL,
            rate text NOT NULL,
            amount bigint NOT NULL,
            adjustment_id uuid,
            PRIMARY KEY (pack_id, position),
            CHECK ((kind = 'match') = (amount > 0)),
            CHECK ((kind = 'adjustment') = (adjustment_id IS NOT NULL))
        );
        CREATE INDEX claim_line_share ON products.claim_line (enrolment_id, window_start);
        CREATE INDEX claim_line_adjustment ON products.claim_line (adjustment_id) WHERE adjustment_id IS NOT NULL;

        CREATE FUNCTION products.refuse_claim_change() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF (to_jsonb(NEW) - ARRAY['state', 'certification', 'certified_on', 'certified_at', 'booked_lines',
                                      'booked_at'])
               <> (to_jsonb(OLD) - ARRAY['state', 'certification', 'certified_on', 'certified_at', 'booked_lines',
                                         'booked_at'])
               OR OLD.state <> 'made' AND (NEW.state, NEW.certification, NEW.certified_on, NEW.certified_at)
                  IS DISTINCT FROM (OLD.state, OLD.certification, OLD.certified_on, OLD.certified_at)
               OR NEW.booked_lines < OLD.booked_lines OR OLD.booked_at IS NOT NULL
               OR NEW.booked_lines > 0 AND NEW.state <> 'certified' THEN
                RAISE EXCEPTION 'a claim pack is what was signed, and what was certified of it stays'
                    USING ERRCODE = 'MZ002';
            END IF;
            RETURN NEW;
        END $$;
        CREATE FUNCTION products.refuse_claim_line() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF EXISTS (SELECT FROM added a JOIN products.claim_pack p ON p.id = a.pack_id
                       WHERE p.xid <> pg_current_xact_id()) THEN
                RAISE EXCEPTION 'a claim pack has the lines that it was signed with' USING ERRCODE = 'MZ002';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER pack_is_immutable BEFORE UPDATE ON products.claim_pack
            FOR EACH ROW EXECUTE FUNCTION products.refuse_claim_change();
        CREATE TRIGGER only_changes BEFORE DELETE OR TRUNCATE ON products.claim_pack
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
        CREATE TRIGGER only_of_a_new_pack AFTER INSERT ON products.claim_line REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION products.refuse_claim_line();
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON products.claim_line
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

        ALTER TABLE products.claim_pack ENABLE ROW LEVEL SECURITY;
        ALTER TABLE products.claim_line ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON products.claim_pack TO mizan_api USING ({STAFF});
        CREATE POLICY staff ON products.claim_line TO mizan_api USING ({STAFF});
        CREATE POLICY auditor ON products.claim_pack FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON products.claim_line FOR SELECT TO mizan_auditor USING (true);
        GRANT SELECT ON products.claim_pack, products.claim_line TO mizan_api, mizan_auditor;
        GRANT SELECT, INSERT ON products.claim_pack, products.claim_line TO mizan_worker;
        GRANT UPDATE (state, certification, certified_on, certified_at, booked_lines, booked_at)
            ON products.claim_pack TO mizan_worker
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
