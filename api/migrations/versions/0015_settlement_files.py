"""Partners' own settlement files, and where they differ from the books.

Revision 0015; follows 0014_settlements. Of a file what a mapping names is kept, line by line, and its digest; never the file.
Lines and differences are the worker's to write and nobody's to change: a difference is explained, with a remark.
"""

from alembic import op

revision = "0015_settlement_files"
down_revision = "0014_settlements"
branch_labels = None
depends_on = None

_OWN_ROWS = """(partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
    or current_setting('mizan.access', true) = 'staff')"""
_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_NARROWED = (
    "nullif(current_setting('mizan.member', true), '') IS NULL"
    f" AND ({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- How a partner's files for a programme are read; the latest holds.
        CREATE TABLE products.settlement_mapping (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            mapping jsonb NOT NULL,
            recorded_at timestamptz NOT NULL
        );
        CREATE INDEX settlement_mapping_of ON products.settlement_mapping (partner_id, programme_id, id);

        -- One file, once as read by one mapping for the same days. What it was compared with is what was there then.
        CREATE TABLE products.settlement_file (
            id uuid PRIMARY KEY,
            partner_id uuid NOT NULL REFERENCES products.partner,
            programme_id uuid NOT NULL REFERENCES products.programme,
            mapping_id uuid NOT NULL REFERENCES products.settlement_mapping,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            first_on date NOT NULL,
            last_on date NOT NULL,
            lines integer NOT NULL CHECK (lines >= 0),
            compared_at timestamptz NOT NULL,
            CHECK (first_on <= last_on),
            UNIQUE (partner_id, programme_id, digest, mapping_id, first_on, last_on)
        );

        CREATE TABLE products.settlement_file_line (
            file_id uuid NOT NULL REFERENCES products.settlement_file,
            position integer NOT NULL,
            remittance_id text COLLATE "C" NOT NULL,
            kind text NOT NULL CHECK (kind IN ('collection', 'reversal')),
            amount bigint NOT NULL CHECK (amount >= 0),
            currency char(3) NOT NULL,
            at timestamptz,
            PRIMARY KEY (file_id, position)
        );

        CREATE TABLE products.settlement_difference (
            file_id uuid NOT NULL REFERENCES products.settlement_file,
            number integer NOT NULL,
            type text NOT NULL
                CHECK (type IN ('missing_here', 'missing_there', 'amount', 'currency', 'duplicate')),
            kind text NOT NULL CHECK (kind IN ('collection', 'reversal')),
            remittance_id text COLLATE "C" NOT NULL,
            remittance uuid,
            position integer,
            there_amount bigint,
            there_currency char(3),
            here_amount bigint,
            here_currency char(3),
            here_state text,
            here_reason text,
            state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'explained')),
            remark text,
            explained_by text,
            explained_at timestamptz,
            PRIMARY KEY (file_id, number),
            CHECK ((state = 'explained') = (remark IS NOT NULL AND explained_at IS NOT NULL))
        );

        -- What is on record of a file's days. A range index costs what is inserted next to nothing.
        CREATE INDEX remittance_contributed ON products.remittance USING brin (contributed_at) WITH (pages_per_range = 32);
        CREATE INDEX remittance_reversed ON products.remittance (partner_id, reversed_at) WHERE reversed_at IS NOT NULL;

        GRANT SELECT, INSERT ON products.settlement_mapping, products.settlement_file, products.settlement_file_line,
            products.settlement_difference TO mizan_worker;
        GRANT SELECT ON products.settlement_mapping, products.settlement_file, products.settlement_file_line,
            products.settlement_difference TO mizan_api, mizan_auditor;
        GRANT UPDATE (state, remark, explained_by, explained_at) ON products.settlement_difference
            TO mizan_api, mizan_worker
    """)
    for table in ("settlement_mapping", "settlement_file"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own_rows ON products.{table} USING {_OWN_ROWS};
            CREATE POLICY narrowed ON products.{table} AS RESTRICTIVE TO mizan_api USING ({_NARROWED});
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true)
        """)
    for table in ("settlement_file_line", "settlement_difference"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY of_file ON products.{table} TO mizan_api
                USING (EXISTS (SELECT FROM products.settlement_file f WHERE f.id = {table}.file_id));
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true)
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
