"""Match that is granted at the end of its window (`granted: end_of_window`): once the window's last day is over, by a job.

Until then it stays committed. From then on what settled contributions earn is granted, and what is settled or derived anew
later in that window is granted at once, as everywhere.
"""

import hashlib
from typing import Final

from ledger import periods
from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from ledger.posting import Transaction
from products.posting import post_whole
from products.remittances.context import Books, load_sponsors
from products.savings.holdings import load_holdings
from products.savings.match import MatchBook, StateKey

WINDOWS_MAX: Final = 1_000
"""Windows that end in one database transaction."""


def end_windows(tx: Tx, books: Books, *, limit: int = WINDOWS_MAX) -> int:
    """Grant what settled contributions earned in windows that are over; answers how many windows. 0: none is left.

    One such job at a time, another answers 0; each window is marked with what it grants, so stopping loses nothing.
    """
    cur = cursor(tx)
    cur.execute("SELECT pg_try_advisory_xact_lock(hashtextextended('products.savings.grants', 4712))")
    if cur.fetchone() != (True,):
        return 0
    now = books.clock.now()
    cur.execute(
        """SELECT s.enrolment_id, s.window_start FROM products.match_state s
           JOIN products.enrolment e ON e.id = s.enrolment_id JOIN products.programme g ON g.id = e.programme_id
           WHERE s.grants_on IS NOT NULL AND NOT s.window_over
             AND s.grants_on <= (%(now)s::timestamptz AT TIME ZONE 'Etc/GMT-14')::date
             AND s.grants_on <= (%(now)s::timestamptz AT TIME ZONE g.time_zone)::date
           ORDER BY e.programme_id, s.enrolment_id, s.window_start LIMIT %(limit)s""",
        {"now": now, "limit": limit},
    )
    keys: list[StateKey] = cur.fetchall()
    holdings = load_holdings(tx, books.programmes, keys) if keys else {}
    batch: list[Transaction] = []
    match_books: list[MatchBook] = []
    for programme_id in sorted({one.programme_id for one in holdings.values()}):
        here = {key: one for key, one in sorted(holdings.items()) if one.programme_id == programme_id}
        match_book = MatchBook(load_sponsors(tx, [programme_id])[programme_id])
        match_book.lock(tx, {key: one.lock_values for key, one in here.items()})
        match_books.append(match_book)
        for key, one in here.items():
            postings = match_book.end_window(key, one.match, one.accounts, one.currency, at=now)
            if not postings:
                continue
            id_ = new_id()
            day = periods.effective_day(now, one.time_zone)
            batch.append(
                Transaction(
                    reference=f"match-granted:{id_}",
                    kind="match_granted",
                    effective_on=periods.open_day(tx, [one.fund_id], day),
                    postings=tuple(postings),
                    digest=hashlib.sha256(f"{key[0]}|{key[1]}|{id_}".encode()).digest(),
                    id=id_,
                    details={"enrolment": public_id("enr", key[0]), "window": key[1].isoformat()},
                )
            )
    post_whole(tx, batch, clock=books.clock)
    for match_book in match_books:
        match_book.save(tx, now)
    return len(keys)
