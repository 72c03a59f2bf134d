"""Breaks and their resolutions.

Revision 0023; follows 0022_expected.
"""

from alembic import op

revision = "0023_breaks"
down_revision = "0022_expected"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        -- What does not tie, and why: one row for each subject and type, kept when it is over.
        CREATE TABLE products.break (
            id uuid PRIMARY KEY,
            type text NOT NULL,
            bank_account_id uuid,
            fund_id uuid,
            partner_id uuid,
            subject_kind text NOT NULL,
            subject text NOT NULL,
            amount bigint NOT NULL,
            currency char(3) NOT NULL,
            on_date date NOT NULL,
            found_at timestamptz NOT NULL,
            state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'waiting', 'resolved', 'gone')),
            owner text,
            waits_until date,
            remark text,
            ended_at timestamptz
        );
        CREATE UNIQUE INDEX break_of ON products.break (subject_kind, subject, type) WHERE ended_at IS NULL
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
