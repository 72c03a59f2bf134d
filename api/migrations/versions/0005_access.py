"""Who may see what: row-level security for members, for staff of single programmes, and for consent to the whole account.

Revision 0005; follows 0004_api. A request tells its transaction whom it speaks for (`api.auth.actors.Sight`):

- `mizan.partner`: the partner, or the organisation, whose rows it sees; `mizan.access` = 'staff': every partner's.
- `mizan.member`: a link; narrows the partner's rows to those of this one member.
- `mizan.programmes`: programmes, by comma; narrows whatever is seen to theirs.
- `mizan.whole`: a member; the money of the person whom it is one of is seen through every partner, once consent to that
  was read.
- `mizan.client`: the client or operator itself.

Not set, or empty, means: nothing of anyone's for the first two, no narrowing for the next two.

Permissive policies say whose rows they are (`own_rows`, `partner`, since 0001 to 0004); restrictive ones (`narrowed`)
take away what a narrowed request must not see.
"""

from alembic import op

revision = "0005_access"
down_revision = "0004_api"
branch_labels = None
depends_on = None

_PARTNER = "nullif(current_setting('mizan.partner', true), '')::uuid"
_STAFF = "current_setting('mizan.access', true) = 'staff'"
_MEMBER = "nullif(current_setting('mizan.member', true), '')::uuid"
_PROGRAMMES = "nullif(current_setting('mizan.programmes', true), '')"
_WHOLE = "nullif(current_setting('mizan.whole', true), '')::uuid"
_UNNARROWED = f"({_MEMBER} IS NULL AND {_PROGRAMMES} IS NULL)"
_IN_PROGRAMMES = (
    f"({_PROGRAMMES} IS NULL OR programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[]))"
)
# in a scalar subquery, so that a statement asks once, and only when a row depends on it
_WHOLE_MEMBERS = "((SELECT products.whole_members())::uuid[])"
_THE_MEMBER = f"({_MEMBER} IS NULL OR member_id = (SELECT products.seen_member()) OR member_id = ANY ({_WHOLE_MEMBERS}))"
_LINKED = "EXISTS (SELECT FROM products.member_link l WHERE l.member_id = {table}.member_id)"

_NARROWED = {
    "products.member_link": f"({_MEMBER} IS NULL OR id = {_MEMBER}) AND {_IN_PROGRAMMES}",
    "products.member_fact": f"{_UNNARROWED} OR {_LINKED}",
    "products.consent": f"{_UNNARROWED} OR {_LINKED}",
    "products.enrolment": f"{_THE_MEMBER} AND {_IN_PROGRAMMES}",
    "products.remittance": f"{_THE_MEMBER} AND {_IN_PROGRAMMES}",
    "products.contribution": f"{_THE_MEMBER} AND {_IN_PROGRAMMES}",
    "products.quote": f"{_THE_MEMBER} AND {_IN_PROGRAMMES}",
    "products.remittance_claim": (
        f"{_UNNARROWED} OR EXISTS (SELECT FROM products.remittance r WHERE r.id = remittance_claim.id)"
    ),
    "products.partner_programme": (
        f"({_MEMBER} IS NULL OR programme_id = (SELECT products.seen_member_programme())) AND {_IN_PROGRAMMES}"
    ),
    # one transfer pays for everything that a partner collected: it is no one programme's, and no member's
    "products.settlement": _UNNARROWED,
    "integrations.webhook_secret": _UNNARROWED,
    "integrations.delivery_outcome": (
        f"{_UNNARROWED} OR EXISTS (SELECT FROM products.remittance r WHERE r.id = delivery_outcome.remittance_id)"
    ),
    "integrations.delivery": (
        f"{_UNNARROWED} OR EXISTS (SELECT FROM integrations.delivery_outcome o"
        " WHERE o.delivery_id = delivery.id AND o.remittance_id IS NOT NULL)"
    ),
}
"""What is left to a narrowed request. The subqueries are themselves under the policies of their tables."""

_IN_FUNDS = f"({_PROGRAMMES} IS NULL OR {{fund}} = ANY ((SELECT products.seen_funds())::uuid[]))"
_WHOLE_ACCOUNTS = (
    f"{_WHOLE} IS NOT NULL AND owner = ANY ((SELECT products.owned_by(products.whole_members()))::text[])"
)
_THESE_ACCOUNTS = (
    f"({_MEMBER} IS NULL OR owner = ANY ((SELECT products.owned_by(products.whole_members()"
    f" || products.seen_member()))::text[])) AND {_IN_FUNDS.format(fund='fund_id')}"
)
_SEEN_ACCOUNT = f"(partner_id = {_PARTNER} OR {_STAFF} OR {_WHOLE_ACCOUNTS}) AND {_THESE_ACCOUNTS}"
"""What the policies of `ledger.account` let through together, for functions that ask with their owner's rights."""

_PLANNED_EACH_TIME = "SET plan_cache_mode = force_custom_plan"

_HANGS_ON_ENROLMENT = ("match_state", "match_share", "match_queue", "match_adjustment")
_WHOLE_ACCOUNT = {
    "products.member": "id",
    "products.enrolment": "member_id",
    "products.remittance": "member_id",
    "products.contribution": "member_id",
}
"""The person's money, and not what each partner was told of the person; with the column that names the member."""


def upgrade() -> None:
    """Add the organisations, and the policies."""
    op.execute("""
        -- An organisation (an association, an NGO, a consulate) registers people and sends no money.
        ALTER TABLE products.partner ADD kind text NOT NULL DEFAULT 'remitter'
            CHECK (kind IN ('remitter', 'organisation'))
    """)
    _functions()
    _narrow()
    _show_the_whole_account()
    _guard_what_was_open()
    _reading()
    _ledger()
    _itself()
    # clients made before these scopes were apart from members:write go on as they did
    op.execute("""
        UPDATE api.oauth_client SET scopes = scopes || '{consents:write,payees:write,proofs:write}'
        WHERE 'members:write' = ANY (scopes);
        UPDATE api.oauth_client SET scopes = scopes || '{sponsors:read}' WHERE 'ledger:read' = ANY (scopes)
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _functions() -> None:
    """What the settings of a transaction mean; with their owner's rights, as policies may not ask themselves."""
    bodies = {
        "seen_member() RETURNS uuid": f"""
            SELECT member_id FROM products.member_link
            WHERE id = {_MEMBER} AND partner_id = {_PARTNER} AND ended_at IS NULL""",
        "seen_member_programme() RETURNS uuid": f"""
            SELECT programme_id FROM products.member_link
            WHERE id = {_MEMBER} AND partner_id = {_PARTNER} AND ended_at IS NULL""",
        # `ledger.account.owner` is the member's or the enrolment's id in hexadecimal: products.chart
        "owned_by(members uuid[]) RETURNS text[]": """
            SELECT array_agg(replace(id::text, '-', '')) FROM (
                SELECT unnest(owned_by.members) AS id
                UNION ALL SELECT e.id FROM products.enrolment e WHERE e.member_id = ANY (owned_by.members)) AS owner""",
        "seen_funds() RETURNS uuid[]": f"""
            SELECT array_agg(fund_id) FROM (
                SELECT fund_id, programme_id FROM products.programme_fund
                UNION ALL SELECT fund_id, programme_id FROM products.sponsor) AS fund
            WHERE programme_id = ANY (string_to_array({_PROGRAMMES}, ',')::uuid[])""",
    }
    for signature, body in bodies.items():
        name = signature.partition("(")[0]
        op.execute(f"""
            CREATE FUNCTION products.{signature} LANGUAGE sql STABLE SECURITY DEFINER
                SET search_path = pg_catalog, pg_temp AS $${body}$$;
            REVOKE ALL ON FUNCTION products.{name} FROM PUBLIC;
            GRANT EXECUTE ON FUNCTION products.{name} TO mizan_api
        """)
    op.execute(f"""
        -- The members who were proven to be one person with `mizan.whole`; in plpgsql, as 0008 brings the table.
        CREATE FUNCTION products.whole_members() RETURNS uuid[] LANGUAGE plpgsql STABLE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            whole uuid := {_WHOLE};
        BEGIN
            RETURN ARRAY(
                SELECT whole WHERE whole IS NOT NULL
                UNION
                SELECT o.member_id FROM products.person_member p
                JOIN products.person_member o ON o.person_id = p.person_id AND o.left_at IS NULL
                WHERE p.member_id = whole AND p.left_at IS NULL);
        END $$;
        REVOKE ALL ON FUNCTION products.whole_members FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION products.whole_members TO mizan_api
    """)


def _narrow() -> None:
    for table, condition in _NARROWED.items():
        # what the hook inserts is not narrowed, and is inserted thousands of times a second
        command = "SELECT" if table.startswith("integrations.") else "ALL"
        bare = table.partition(".")[2]
        op.execute(
            f"CREATE POLICY narrowed ON {table} AS RESTRICTIVE FOR {command} TO mizan_api"
            f" USING ({condition.format(table=bare)})"
        )


def _show_the_whole_account() -> None:
    for table, member in _WHOLE_ACCOUNT.items():
        op.execute(
            f"CREATE POLICY whole ON {table} FOR SELECT TO mizan_api"
            f" USING ({_WHOLE} IS NOT NULL AND {member} = ANY ({_WHOLE_MEMBERS}))"
        )
    op.execute(f"""
        CREATE POLICY whole ON ledger.account FOR SELECT TO mizan_api USING ({_WHOLE_ACCOUNTS})
    """)


def _guard_what_was_open() -> None:
    for table in _HANGS_ON_ENROLMENT:
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY of_enrolment ON products.{table} TO mizan_api
                USING (EXISTS (SELECT FROM products.enrolment e WHERE e.id = {table}.enrolment_id))
        """)
    op.execute(f"""
        ALTER TABLE products.partner ENABLE ROW LEVEL SECURITY;
        -- a client that proves itself sees whether its partner is active; the hook knows every sender
        CREATE POLICY itself ON products.partner TO mizan_api
            USING (id = {_PARTNER} OR current_setting('mizan.access', true) IN ('staff', 'hook')
                   OR id IN (SELECT c.partner_id FROM api.oauth_client c));
        CREATE POLICY narrowed ON products.partner AS RESTRICTIVE TO mizan_api
            USING ({_PROGRAMMES} IS NULL OR id = {_PARTNER}
                   OR EXISTS (SELECT FROM products.partner_programme j WHERE j.partner_id = partner.id));
        ALTER TABLE products.sponsor ENABLE ROW LEVEL SECURITY;
        CREATE POLICY of_programme ON products.sponsor TO mizan_api
            USING ({_IN_PROGRAMMES} AND ({_STAFF} OR EXISTS (
                SELECT FROM products.partner_programme j WHERE j.programme_id = sponsor.programme_id)));
        ALTER TABLE integrations.delivery_queue ENABLE ROW LEVEL SECURITY;
        CREATE POLICY of_delivery ON integrations.delivery_queue FOR SELECT TO mizan_api
            USING (EXISTS (SELECT FROM integrations.delivery d WHERE d.id = delivery_queue.id));
        CREATE POLICY received ON integrations.delivery_queue FOR INSERT TO mizan_api WITH CHECK (true)
    """)
    for table in (
        *(f"products.{name}" for name in _HANGS_ON_ENROLMENT),
        "products.partner",
        "products.sponsor",
        "integrations.delivery_queue",
    ):
        op.execute(f"CREATE POLICY auditor ON {table} FOR SELECT TO mizan_auditor USING (true)")


def _ledger() -> None:
    op.execute(f"""
        CREATE POLICY narrowed ON ledger.account AS RESTRICTIVE TO mizan_api
            USING ({_THESE_ACCOUNTS});
        ALTER TABLE ledger.fund ENABLE ROW LEVEL SECURITY;
        ALTER TABLE ledger.period_event ENABLE ROW LEVEL SECURITY;
        CREATE POLICY staff ON ledger.fund TO mizan_api USING ({_STAFF} AND {_IN_FUNDS.format(fund="id")});
        CREATE POLICY staff ON ledger.period_event TO mizan_api
            USING ({_STAFF} AND {_IN_FUNDS.format(fund="fund_id")});
        CREATE POLICY auditor ON ledger.fund FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON ledger.period_event FOR SELECT TO mizan_auditor USING (true);
        ALTER TABLE ledger.transaction ENABLE ROW LEVEL SECURITY;
        ALTER TABLE ledger.posting ENABLE ROW LEVEL SECURITY;
        CREATE POLICY journal ON ledger.transaction FOR SELECT TO mizan_api
            USING ({_STAFF} AND {_UNNARROWED} OR ledger.reached(id));
        CREATE POLICY journal ON ledger.posting FOR SELECT TO mizan_api
            USING ({_STAFF} AND {_UNNARROWED} OR ledger.reached(debit_account, credit_account));
        CREATE POLICY auditor ON ledger.transaction FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY auditor ON ledger.posting FOR SELECT TO mizan_auditor USING (true);
        CREATE POLICY sealer ON ledger.transaction FOR SELECT TO mizan_sealer USING (true);
        CREATE POLICY sealer ON ledger.posting FOR SELECT TO mizan_sealer USING (true);
        -- no request reads these: the worker does, and what it tells a partner has its own table
        REVOKE SELECT ON ledger.outbox, ledger.reference FROM mizan_api
    """)


def _reading() -> None:
    """The journal, reached through its accounts, with the owner's rights.

    A policy that asks of every posting and transaction whose accounts it moves costs more than reading them: so
    statements and balances ask once for the account, and then read what it moved (`lines_of`, `moved_since`). Planned
    each time: a kept plan, made while the journal was short, reads all of it by another index.
    """
    functions = {
        # roles that see all of the journal see all of it here
        "seen(account uuid) RETURNS boolean": (
            "",
            f"""
            BEGIN
                RETURN pg_has_role(session_user, 'mizan_worker', 'USAGE')
                    OR pg_has_role(session_user, 'mizan_auditor', 'USAGE')
                    OR EXISTS (SELECT FROM ledger.account a WHERE a.id = account AND {_SEEN_ACCOUNT});
            END""",
        ),
        "reached(debit uuid, credit uuid) RETURNS boolean": (
            "",
            f"""
            BEGIN
                RETURN EXISTS (SELECT FROM ledger.account a WHERE a.id IN (debit, credit) AND {_SEEN_ACCOUNT});
            END""",
        ),
        "reached(moved uuid) RETURNS boolean": (
            "",
            """
            BEGIN
                RETURN EXISTS (SELECT FROM ledger.posting p WHERE p.transaction_id = moved
                               AND ledger.reached(p.debit_account, p.credit_account));
            END""",
        ),
        # an account's newest lines before a place; no sort, or an account that grew since the statistics looks short
        # and sorting something short looks cheap
        """lines_of(account uuid, before uuid, before_seq integer, horizon_era integer, horizon xid8, wanted integer)
            RETURNS TABLE (transaction_id uuid, seq smallint, kind text, reference text, effective_on date,
                           recorded_at timestamptz, counter uuid, amount bigint, debited boolean)""": (
            f"ROWS 50 {_PLANNED_EACH_TIME} SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off",
            f"""
            #variable_conflict use_column
            BEGIN
                IF ledger.seen(account) THEN
                    RETURN QUERY {_side("debit_account", "credit_account", "true")}
                                 UNION ALL
                                 {_side("credit_account", "debit_account", "false")};
                END IF;
            END""",
        ),
        # what moved on accounts from a place in the journal on, with its place
        """moved_since(accounts uuid[], through date, from_era integer, from_xid xid8)
            RETURNS TABLE (account_id uuid, debits bigint, credits bigint, era smallint, xid xid8)""": (
            _PLANNED_EACH_TIME,
            """
            #variable_conflict use_column
            DECLARE
                seen uuid[] := ARRAY(SELECT a FROM unnest(accounts) AS a WHERE ledger.seen(a));
            BEGIN
                -- LATERAL with OFFSET 0 keeps the tail's postings behind their primary key
                RETURN QUERY SELECT side.account_id, side.debits, side.credits, tail.era, tail.xid
                FROM (
                    SELECT t.id, t.era, t.xid FROM ledger.transaction t WHERE t.era = from_era AND t.xid >= from_xid
                    UNION ALL
                    SELECT t.id, t.era, t.xid FROM ledger.transaction t WHERE t.era > from_era
                ) AS tail
                CROSS JOIN LATERAL (
                    SELECT p.debit_account, p.credit_account, p.amount FROM ledger.posting p
                    WHERE p.transaction_id = tail.id AND p.effective_on <= through
                      AND (p.debit_account = ANY (seen) OR p.credit_account = ANY (seen)) OFFSET 0
                ) AS posting
                CROSS JOIN LATERAL (
                    VALUES (posting.debit_account, posting.amount, 0::bigint), (posting.credit_account, 0, posting.amount)
                ) AS side (account_id, debits, credits)
                WHERE side.account_id = ANY (seen);
            END""",
        ),
    }
    for signature, (options, body) in functions.items():
        op.execute(f"""
            CREATE FUNCTION ledger.{signature} LANGUAGE plpgsql STABLE SECURITY DEFINER
                SET search_path = pg_catalog, pg_temp {options} AS $${body}$$
        """)
    op.execute("""
        REVOKE ALL ON FUNCTION ledger.seen, ledger.reached(uuid), ledger.reached(uuid, uuid), ledger.lines_of,
            ledger.moved_since FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION ledger.reached(uuid), ledger.reached(uuid, uuid) TO mizan_api;
        GRANT EXECUTE ON FUNCTION ledger.lines_of, ledger.moved_since TO mizan_api, mizan_worker, mizan_auditor
    """)


def _side(own: str, counter: str, debited: str) -> str:
    """One side's newest lines; the transactions are looked up one by one, as only a page of them is wanted."""
    return f"""
        (SELECT posting.transaction_id, posting.seq, written.kind, written.reference, posting.effective_on,
                written.recorded_at, posting.{counter}, posting.amount, {debited}
         FROM ledger.posting
         CROSS JOIN LATERAL (
             SELECT t.kind, t.reference, t.recorded_at FROM ledger.transaction t
             WHERE t.id = posting.transaction_id
               AND (t.era < horizon_era OR t.era = horizon_era AND t.xid < horizon) OFFSET 0
         ) AS written
         WHERE posting.{own} = account
           AND posting.transaction_id <= before AND (posting.transaction_id, posting.seq) < (before, before_seq)
         ORDER BY posting.transaction_id DESC, posting.seq DESC LIMIT wanted)"""


def _itself() -> None:
    op.execute("""
        ALTER TABLE api.idempotent_answer ENABLE ROW LEVEL SECURITY;
        CREATE POLICY itself ON api.idempotent_answer TO mizan_api
            USING (client_id = nullif(current_setting('mizan.client', true), '')::uuid)
    """)
