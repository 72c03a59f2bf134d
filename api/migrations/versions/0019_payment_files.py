"""Payment files for banks, and the banks' answers.

Revision 0019; follows 0018_events. What is in a file, and in an answer, is never changed: of a file only its state and its times
are, and nothing is deleted. Contents rest under a day's key of the inbox, which is destroyed one day; counts, amounts, digests
and what was said of each payment stay.
"""

from alembic import op

revision = "0019_payment_files"
down_revision = "0018_events"
branch_labels = None
depends_on = None

# whom a rail's programme is for, its own policy says
_OF_RAIL = (
    "current_setting('mizan.access', true) = 'staff'"
    " AND EXISTS (SELECT FROM products.rail r WHERE r.slug = {table}.rail)"
)
_OF_FILE = "EXISTS (SELECT FROM integrations.payment_file f WHERE f.id = {table}.file_id)"
_TABLES = {
    "payment_file": ("of_rail", _OF_RAIL),
    "payment_answer": ("of_rail", _OF_RAIL),
    "payment_file_line": ("of_file", _OF_FILE),
    "payment_answer_line": ("of_file", _OF_FILE),
}


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- One file of one batch of payments, as the bank gets it. Who makes it a second time finds it by its batch.
        CREATE TABLE integrations.payment_file (
            id uuid PRIMARY KEY,
            rail text NOT NULL,
            batch uuid NOT NULL UNIQUE,
            message_id text NOT NULL UNIQUE,
            payments integer NOT NULL CHECK (payments > 0),
            control_sum numeric NOT NULL CHECK (control_sum > 0),
            execution_on date NOT NULL,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            content_sealed bytea NOT NULL,
            inbox_key_id uuid NOT NULL,
            state text NOT NULL DEFAULT 'made'
                CHECK (state IN ('made', 'fetched', 'accepted', 'part', 'rejected')),
            made_at timestamptz NOT NULL,
            fetched_at timestamptz,
            answered_at timestamptz,
            CHECK (state <> 'made' OR fetched_at IS NULL AND answered_at IS NULL)
        );
        ALTER TABLE integrations.payment_file ALTER COLUMN content_sealed SET STORAGE EXTERNAL;
        CREATE INDEX payment_file_rail ON integrations.payment_file (rail, id);

        -- The payments of a file. An attempt is in one file for ever: the second time it is refused by this key.
        CREATE TABLE integrations.payment_file_line (
            attempt uuid PRIMARY KEY,
            file_id uuid NOT NULL REFERENCES integrations.payment_file,
            position integer NOT NULL CHECK (position > 0),
            part smallint NOT NULL CHECK (part > 0),
            amount bigint NOT NULL CHECK (amount > 0),
            currency text NOT NULL,
            UNIQUE (file_id, position)
        );

        -- One file that came back, once by its content.
        CREATE TABLE integrations.payment_answer (
            id uuid PRIMARY KEY,
            rail text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('status', 'returns')),
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            content_sealed bytea NOT NULL,
            inbox_key_id uuid NOT NULL,
            said_at timestamptz NOT NULL,
            received_at timestamptz NOT NULL,
            UNIQUE (rail, digest)
        );
        ALTER TABLE integrations.payment_answer ALTER COLUMN content_sealed SET STORAGE EXTERNAL;

        -- What an answer says of one payment; the latest that the bank has said stands, the others are its history.
        CREATE TABLE integrations.payment_answer_line (
            answer_id uuid NOT NULL REFERENCES integrations.payment_answer,
            attempt uuid NOT NULL REFERENCES integrations.payment_file_line,
            file_id uuid NOT NULL REFERENCES integrations.payment_file,
            status text NOT NULL,
            code text,
            amount bigint,
            currency text,
            PRIMARY KEY (answer_id, attempt)
        );
        CREATE INDEX payment_answer_line_attempt ON integrations.payment_answer_line (attempt);

        GRANT SELECT, INSERT ON integrations.payment_file, integrations.payment_file_line, integrations.payment_answer,
            integrations.payment_answer_line TO mizan_worker;
        GRANT UPDATE (state, fetched_at, answered_at) ON integrations.payment_file TO mizan_worker;
        GRANT SELECT ON integrations.payment_file, integrations.payment_file_line, integrations.payment_answer,
            integrations.payment_answer_line TO mizan_api, mizan_auditor;
        GRANT UPDATE (state, fetched_at) ON integrations.payment_file TO mizan_api
    """)
    for table, (policy, whose) in _TABLES.items():
        op.execute(f"""
            ALTER TABLE integrations.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY {policy} ON integrations.{table} TO mizan_api USING ({whose.format(table=table)});
            CREATE POLICY auditor ON integrations.{table} FOR SELECT TO mizan_auditor USING (true)
        """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
