"""What must hold between remittances and the books: further checks of `ledger.verify`, as sets that select the lies.

They run as `mizan_auditor`, who reads everybody's remittances for the length of the transaction.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from ledger.checks import SetCheck
from ledger.database import Tx
from ledger.report import Check, ExtraCheck

_POSTED_REMITTANCES: Final = SetCheck(
    name="remittances are in the books",
    counted="SELECT count(*) FROM products.remittance WHERE transaction_id IS NOT NULL",
    lies="""
        SELECT 'remittance ' || r.id, 'its transaction ' || t.id || ' is not in the journal'
        FROM products.remittance r
        CROSS JOIN LATERAL (VALUES (r.transaction_id), (r.reversal_transaction_id)) AS t (id)
        WHERE t.id IS NOT NULL AND NOT EXISTS (SELECT FROM ledger.transaction l WHERE l.id = t.id)
        UNION ALL
        SELECT 'remittance ' || r.id, 'collected ' || r.collected_amount || ' and has no transaction'
        FROM products.remittance r
        WHERE r.status IN ('posted', 'unallocated') AND r.collected_amount > 0 AND r.transaction_id IS NULL
    """,
)
_JOURNALLED_REMITTANCES: Final = SetCheck(
    name="the books' remittances are on record",
    counted="SELECT count(*) FROM ledger.transaction WHERE kind LIKE 'remittance\\_%'",
    lies="""
        SELECT 'transaction ' || l.id, 'no remittance is on record for its reference ' || l.reference
        FROM ledger.transaction l
        WHERE l.kind LIKE 'remittance\\_%'
          AND NOT EXISTS (SELECT FROM products.remittance r WHERE r.id::text = split_part(l.reference, '\\:', 2))
    """,
)
_CONTRIBUTIONS: Final = SetCheck(
    name="contributions add up to what was collected",
    counted="SELECT count(*) FROM products.remittance WHERE status IN ('posted', 'unallocated', 'reversed')",
    lies="""
        SELECT 'remittance ' || r.id, r.status || ', collected ' || coalesce(r.collected_amount, 0)
               || ', its contributions come to ' || coalesce(c.amount, 0)
        FROM products.remittance r
        LEFT JOIN (SELECT remittance, sum(amount) AS amount FROM products.contribution
                   WHERE state <> 'reversed' GROUP BY remittance) c ON c.remittance = r.id
        WHERE r.status IN ('posted', 'unallocated', 'reversed')
          AND coalesce(c.amount, 0) <> CASE r.status WHEN 'reversed' THEN 0 ELSE coalesce(r.collected_amount, 0) END
    """,
)
_PENDING: Final = SetCheck(
    name="pending accounts hold the pending contributions",
    counted="SELECT count(*) FROM products.enrolment WHERE pending_account IS NOT NULL",
    lies="""
        SELECT 'enrolment ' || e.id, 'contributions of ' || coalesce(c.amount, 0) || ' are pending, its account holds '
               || (b.credits - b.debits)
        FROM products.enrolment e JOIN ledger.account_balance b ON b.account_id = e.pending_account
        LEFT JOIN (SELECT credited_account, sum(amount) AS amount FROM products.contribution
                   WHERE state = 'pending' GROUP BY credited_account) c ON c.credited_account = e.pending_account
        WHERE b.credits - b.debits <> coalesce(c.amount, 0)
    """,
)
_ENTITLEMENT: Final = SetCheck(
    name="entitlement is committed, granted or awaiting",
    counted="SELECT count(*) FROM products.match_state",
    lies="""
        SELECT 'enrolment ' || s.enrolment_id || ', window from ' || s.window_start,
               'entitled to ' || s.entitled || ', its shares come to ' || coalesce(h.amount, 0)
        FROM products.match_state s
        LEFT JOIN (SELECT enrolment_id, window_start, sum(committed + unvested + vested + awaiting) AS amount
                   FROM products.match_share GROUP BY enrolment_id, window_start) h
            USING (enrolment_id, window_start)
        WHERE coalesce(h.amount, 0) <> s.entitled
          AND NOT EXISTS (SELECT FROM products.match_adjustment a WHERE a.enrolment_id = s.enrolment_id
                          AND a.window_start = s.window_start AND a.state = 'proposed')
    """,
)
_GRANTED: Final = SetCheck(
    name="match accounts hold what was granted",
    counted="SELECT count(*) FROM products.enrolment WHERE unvested_account IS NOT NULL",
    lies="""
        SELECT 'enrolment ' || e.id, 'granted ' || coalesce(h.unvested, 0) || ' unvested and ' || coalesce(h.vested, 0)
               || ' vested, its accounts hold ' || (u.credits - u.debits) || ' and ' || (v.credits - v.debits)
        FROM products.enrolment e
        JOIN ledger.account_balance u ON u.account_id = e.unvested_account
        JOIN ledger.account_balance v ON v.account_id = e.vested_account
        LEFT JOIN (SELECT enrolment_id, sum(unvested) AS unvested, sum(vested) AS vested FROM products.match_share
                   GROUP BY enrolment_id) h ON h.enrolment_id = e.id
        WHERE (u.credits - u.debits, v.credits - v.debits) <> (coalesce(h.unvested, 0), coalesce(h.vested, 0))
    """,
)
_COMMITTED: Final = SetCheck(
    name="sponsors' accounts hold what is committed, their queues what awaits",
    counted="SELECT count(*) FROM products.sponsor",
    lies="""
        SELECT 'sponsor ' || s.id, 'committed ' || coalesce(h.committed, 0) || ', its account holds '
               || (b.credits - b.debits) || '; awaiting ' || coalesce(h.awaiting, 0) || ', queued '
               || coalesce(q.amount, 0)
        FROM products.sponsor s JOIN ledger.account_balance b ON b.account_id = s.committed_account
        LEFT JOIN (SELECT sponsor_id, sum(committed) AS committed, sum(awaiting) AS awaiting
                   FROM products.match_share GROUP BY sponsor_id) h ON h.sponsor_id = s.id
        LEFT JOIN (SELECT sponsor_id, sum(amount) AS amount FROM products.match_queue GROUP BY sponsor_id) q
            ON q.sponsor_id = s.id
        WHERE (b.credits - b.debits, coalesce(q.amount, 0)) <> (coalesce(h.committed, 0), coalesce(h.awaiting, 0))
    """,
)


def _as_staff(check: SetCheck) -> ExtraCheck:
    def run(tx: Tx) -> Check:
        tx.execute(text("SELECT set_config('mizan.access', 'staff', true)"))
        return check.run(tx)

    return run


CHECKS: Final[Sequence[ExtraCheck]] = tuple(
    _as_staff(check)
    for check in (
        _POSTED_REMITTANCES,
        _JOURNALLED_REMITTANCES,
        _CONTRIBUTIONS,
        _PENDING,
        _ENTITLEMENT,
        _GRANTED,
        _COMMITTED,
    )
)
"""What `mizan ledger verify` checks beside the ledger itself."""
