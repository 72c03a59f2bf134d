"""What must hold between the ledger's tables, as queries over whole sets: each selects the lies.

The database adds up and compares, so the checks cost a few scans whatever the size of the books, and no memory here.
`ledger.verify` runs them beside the replay of the journal and the seals.
"""

from dataclasses import dataclass

from sqlalchemy import text

from ledger.database import Tx
from ledger.fold import WATERMARK
from ledger.report import FINDINGS_MAX, Check, Finding


@dataclass(frozen=True, slots=True)
class SetCheck:
    """`counted` is a scalar query of how many were looked at; `lies` selects (where, what) for each that fails."""

    name: str
    counted: str
    lies: str

    def run(self, tx: Tx) -> Check:
        """Counts the lies and names the first of them."""
        checked = tx.execute(text(self.counted)).scalar_one()
        rows = tx.execute(
            text(f"SELECT count(*) OVER (), lie.* FROM ({self.lies}) AS lie LIMIT {FINDINGS_MAX}"),
            {"watermark": WATERMARK} if ":watermark" in self.lies else {},
        ).all()
        return Check(
            name=self.name,
            checked=int(checked),
            violations=rows[0][0] if rows else 0,
            findings=tuple(Finding(where, what) for _, where, what in rows),
        )


NORMAL_SIDE = (
    "CASE WHEN a.kind IN ('asset', 'expense') THEN b.debits - b.credits ELSE b.credits - b.debits END"
)
"""What an account ``a`` with the balance ``b`` holds, for queries."""

_SIDES = """
    SELECT debit_account AS account_id, effective_on AS day, amount AS debits, 0 AS credits, transaction_id
    FROM ledger.posting
    UNION ALL
    SELECT credit_account, effective_on, 0, amount, transaction_id FROM ledger.posting
"""

_WATERMARK = """
    (transaction.era, transaction.xid) < (
        coalesce((SELECT era FROM ledger.fold WHERE name = :watermark), 0),
        coalesce((SELECT xid FROM ledger.fold WHERE name = :watermark), CAST('0' AS xid8)))
"""

BALANCES = SetCheck(
    "balances are the sums of their postings",
    "SELECT count(*) FROM ledger.account",
    f"""
    SELECT format('account %s', coalesce(account.id, stored.account_id, added.account_id)),
           format('stored debits %s and credits %s, its postings add up to %s and %s',
                  coalesce(CAST(stored.debits AS text), 'none'), coalesce(CAST(stored.credits AS text), 'none'),
                  coalesce(added.debits, 0), coalesce(added.credits, 0))
    FROM ledger.account
    FULL JOIN ledger.account_balance AS stored ON stored.account_id = account.id
    FULL JOIN (SELECT account_id, sum(debits) AS debits, sum(credits) AS credits FROM ({_SIDES}) AS side
               GROUP BY account_id) AS added ON added.account_id = account.id
    WHERE account.id IS NULL OR stored.account_id IS NULL
       OR stored.debits <> coalesce(added.debits, 0) OR stored.credits <> coalesce(added.credits, 0)
    """,
)

HELD = SetCheck(
    "held is the sum of active holds",
    "SELECT count(*) FROM ledger.hold",
    """
    SELECT format('account %s', coalesce(stored.account_id, active.account_id)),
           format('stored held %s, its active holds add up to %s', coalesce(stored.held, 0), coalesce(active.held, 0))
    FROM ledger.account_balance AS stored
    FULL JOIN (SELECT account_id, sum(amount) AS held FROM ledger.hold WHERE state = 'active' GROUP BY account_id)
        AS active ON active.account_id = stored.account_id
    WHERE coalesce(stored.held, 0) <> coalesce(active.held, 0)
    """,
)

CAPTURES = SetCheck(
    "captured holds name their transactions",
    "SELECT count(*) FROM ledger.hold WHERE state = 'captured'",
    """
    SELECT format('hold %s', hold.id), format('its transaction %s is not there', hold.transaction_id)
    FROM ledger.hold LEFT JOIN ledger.transaction ON transaction.id = hold.transaction_id
    WHERE hold.state = 'captured' AND transaction.id IS NULL
    """,
)

LIMITS = SetCheck(
    "balances are within their limits",
    "SELECT count(*) FROM ledger.account WHERE floor IS NOT NULL OR ceiling IS NOT NULL",
    """
    SELECT format('account %s', account.id),
           format('balance %s with %s held, floor %s, ceiling %s', standing.posted, standing.held,
                  coalesce(CAST(account.floor AS text), 'none'), coalesce(CAST(account.ceiling AS text), 'none'))
    FROM ledger.account JOIN (
        SELECT account.id, balance.held,
               CASE WHEN account.kind IN ('asset', 'expense') THEN balance.debits - balance.credits
                    ELSE balance.credits - balance.debits END AS posted
        FROM ledger.account JOIN ledger.account_balance AS balance ON balance.account_id = account.id
    ) AS standing ON standing.id = account.id
    WHERE standing.posted - standing.held < account.floor OR standing.posted > account.ceiling
    """,
)

# A reversal holds a second reference, made of what it reverses, so that nothing is reversed twice.
REFERENCES = SetCheck(
    "references and transactions name each other",
    "SELECT count(*) FROM ledger.reference",
    r"""
    SELECT coalesce(format('transaction %s', due.id), format('reference %L', reference.reference)),
           CASE WHEN due.id IS NULL
                THEN format('its transaction %s with this reference is not there', reference.transaction_id)
                ELSE format('the reference %L is not recorded as its own', due.reference) END
    FROM ledger.reference FULL JOIN (
        SELECT id, reference FROM ledger.transaction
        UNION
        SELECT id, 'reversal\:' || reverses FROM ledger.transaction WHERE reverses IS NOT NULL
    ) AS due ON due.id = reference.transaction_id AND due.reference = reference.reference
    WHERE due.id IS NULL OR reference.reference IS NULL
    """,
)

REVERSALS = SetCheck(
    "reversals name one earlier transaction each",
    "SELECT count(*) FROM ledger.transaction WHERE reverses IS NOT NULL",
    """
    SELECT format('transaction %s', reversal.id),
           CASE WHEN reversal.original IS NULL THEN format('reverses %s, which is not there', reversal.reverses)
                ELSE format('reverses %s, as %s transactions do', reversal.reverses, reversal.times) END
    FROM (SELECT transaction.id, transaction.reverses, original.id AS original,
                 count(*) OVER (PARTITION BY transaction.reverses) AS times
          FROM ledger.transaction LEFT JOIN ledger.transaction AS original
              ON original.id = transaction.reverses AND original.id <> transaction.id
          WHERE transaction.reverses IS NOT NULL) AS reversal
    WHERE reversal.original IS NULL OR reversal.times > 1
    """,
)

SIDES = SetCheck(
    "both sides of a posting are in its fund and currency",
    "SELECT count(*) FROM ledger.posting",
    """
    SELECT format('posting %s of transaction %s', posting.seq, posting.transaction_id),
           CASE WHEN debit.id IS NULL OR credit.id IS NULL THEN 'one of its accounts is not there'
                WHEN debit.fund_id <> credit.fund_id THEN 'its accounts are in different funds'
                ELSE format('it is in %s, its accounts in %s and %s', posting.currency, debit.currency, credit.currency)
           END
    FROM ledger.posting
    LEFT JOIN ledger.account AS debit ON debit.id = posting.debit_account
    LEFT JOIN ledger.account AS credit ON credit.id = posting.credit_account
    WHERE debit.id IS NULL OR credit.id IS NULL OR debit.fund_id <> credit.fund_id
       OR debit.currency <> posting.currency OR credit.currency <> posting.currency
    """,
)

FUNDS = SetCheck(
    "each fund balances in each currency",
    "SELECT count(*) FROM (SELECT DISTINCT fund_id, currency FROM ledger.account) AS fund",
    """
    SELECT format('fund %s in %s', fund.code, account.currency),
           format('debits %s, credits %s', sum(balance.debits), sum(balance.credits))
    FROM ledger.account_balance AS balance
    JOIN ledger.account ON account.id = balance.account_id JOIN ledger.fund ON fund.id = account.fund_id
    GROUP BY fund.code, account.currency HAVING sum(balance.debits) <> sum(balance.credits)
    """,
)

FOLDED_DAYS = SetCheck(
    "folded days are the sums of their postings",
    "SELECT count(*) FROM ledger.account_day",
    f"""
    SELECT format('account %s on %s', coalesce(stored.account_id, added.account_id), coalesce(stored.day, added.day)),
           format('folded debits %s and credits %s, its postings add up to %s and %s', coalesce(stored.debits, 0),
                  coalesce(stored.credits, 0), coalesce(added.debits, 0), coalesce(added.credits, 0))
    FROM ledger.account_day AS stored
    FULL JOIN (SELECT side.account_id, side.day, sum(side.debits) AS debits, sum(side.credits) AS credits
               FROM ({_SIDES}) AS side JOIN ledger.transaction ON transaction.id = side.transaction_id
               WHERE {_WATERMARK} GROUP BY side.account_id, side.day) AS added
        ON added.account_id = stored.account_id AND added.day = stored.day
    WHERE coalesce(stored.debits, 0) <> coalesce(added.debits, 0)
       OR coalesce(stored.credits, 0) <> coalesce(added.credits, 0)
    """,
)

FOLDED_MONTHS = SetCheck(
    "folded months are the sums of their days",
    "SELECT count(*) FROM ledger.account_month",
    """
    SELECT format('account %s in the month of %s', coalesce(stored.account_id, added.account_id),
                  coalesce(stored.month, added.month)),
           format('folded debits %s and credits %s, its days add up to %s and %s', coalesce(stored.debits, 0),
                  coalesce(stored.credits, 0), coalesce(added.debits, 0), coalesce(added.credits, 0))
    FROM ledger.account_month AS stored
    FULL JOIN (SELECT account_id, CAST(date_trunc('month', day) AS date) AS month, sum(debits) AS debits,
                      sum(credits) AS credits FROM ledger.account_day GROUP BY 1, 2) AS added
        ON added.account_id = stored.account_id AND added.month = stored.month
    WHERE coalesce(stored.debits, 0) <> coalesce(added.debits, 0)
       OR coalesce(stored.credits, 0) <> coalesce(added.credits, 0)
    """,
)

SET_CHECKS = (
    BALANCES,
    HELD,
    CAPTURES,
    LIMITS,
    REFERENCES,
    REVERSALS,
    SIDES,
    FUNDS,
    FOLDED_DAYS,
    FOLDED_MONTHS,
)
