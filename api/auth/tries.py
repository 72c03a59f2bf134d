"""Tries at proving who one is: counted before they are judged, so that no number of them at once gets more than its share.

A subject (an account, an account at an address, an address) has some tries free; then it is closed for a time that
doubles with each further try, up to a bound. What comes while it is closed is refused unjudged and does not count, so
nobody keeps a subject closed: after each pause one more try is judged. A proof that holds clears the account's count.

An account is counted apart at each address from which its person has logged in within the last weeks. Whoever guesses
from elsewhere closes the account for unknown addresses only, never for its person where they usually are.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import text

from ledger.database import Tx

FORGOTTEN_AFTER: Final = timedelta(days=1)
FIRST_PAUSE: Final = timedelta(minutes=1)
CLEARED_TOGETHER_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose tries are counted: how many are free, and the longest pause after them."""

    digest: bytes
    free: int
    longest_pause: timedelta


def of_account(email: str, address: str | None = None) -> Subject:
    """An account, or an account at one address that it is known at."""
    return Subject(_digest("account", email, address or ""), 5, timedelta(hours=1))


def of_address(address: str) -> Subject:
    """An address: an office behind one address has many persons, so more is free and the pause is shorter."""
    return Subject(_digest("address", address), 20, timedelta(minutes=15))


def begin(tx: Tx, subject: Subject, now: datetime) -> bool:
    """Count a try; False when the subject is closed, and then it is not counted. Commit before judging the try."""
    return (
        tx.execute(
            text(
                "INSERT INTO api.log_in_tries AS t (subject, tries, tried_at, closed_until)"
                " VALUES (:subject, 1, :now, :now) ON CONFLICT (subject) DO UPDATE SET tried_at = :now,"
                " tries = CASE WHEN t.tried_at < :forgotten THEN 1 ELSE t.tries + 1 END,"
                " closed_until = CASE WHEN t.tried_at < :forgotten OR t.tries + 1 < :free THEN :now"
                " ELSE :now + least(:longest, :first * 2 ^ least(t.tries + 1 - :free, 20)) END"
                " WHERE t.closed_until <= :now RETURNING 1"
            ),
            {
                "subject": subject.digest,
                "now": now,
                "forgotten": now - FORGOTTEN_AFTER,
                "free": subject.free,
                "longest": subject.longest_pause,
                "first": FIRST_PAUSE,
            },
        ).first()
        is not None
    )


def clear(tx: Tx, subject: Subject) -> None:
    """Forget the tries of a subject that has proved itself."""
    tx.execute(text("DELETE FROM api.log_in_tries WHERE subject = :subject"), {"subject": subject.digest})


def take_back(tx: Tx, subject: Subject, now: datetime) -> None:
    """Take back one try that turned out to be good: the others from this address still count."""
    tx.execute(
        text(
            "UPDATE api.log_in_tries SET tries = greatest(tries - 1, 0), closed_until = :now WHERE subject = :subject"
        ),
        {"subject": subject.digest, "now": now},
    )


def forget(tx: Tx, now: datetime) -> None:
    """Delete counts that are over."""
    tx.execute(
        text(
            "DELETE FROM api.log_in_tries WHERE subject IN (SELECT subject FROM api.log_in_tries"
            " WHERE tried_at < :forgotten LIMIT :limit FOR UPDATE SKIP LOCKED)"
        ),
        {"forgotten": now - FORGOTTEN_AFTER, "limit": CLEARED_TOGETHER_MAX},
    )


def _digest(*parts: str) -> bytes:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
