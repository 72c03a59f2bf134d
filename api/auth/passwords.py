"""Passwords of operators: what is accepted, how it is stored, and how long judging one takes.

Stored with argon2id by the parameters that OWASP recommends first (46 MiB, one pass, one lane): as hard to try out in
bulk as those of RFC 9106 §4, which take four times as long, and anyone can make us compute one. A second factor stands
beside it. When the parameters change, a hash is renewed at the next log-in that proves its password.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from secrets import token_urlsafe
from threading import BoundedSemaphore, Lock
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from ledger.errors import InvalidInput, Unavailable

CHARACTERS_MIN: Final = 12
CHARACTERS_MAX: Final = 128
SCORE_MIN: Final = 3
"""zxcvbn's estimate, 0 to 4: 3 is more than 10^8 guesses, out of reach of guessing through the log-in."""
JUDGED_CHARACTERS_MAX: Final = 64
"""How much of a password is estimated: the time it takes grows with the square, and 64 are strong or hopeless."""
AT_ONCE_MAX: Final = 4
"""Hashes computed at one moment in a process: 46 MiB each, and a core while it takes."""
WAIT_SECONDS_MAX: Final = 10.0

_HASHER: Final = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)  # argon2id is its default
_turns: Final = BoundedSemaphore(AT_ONCE_MAX)
_estimating: Final = Lock()  # the library keeps what it was told about a person in a table of its module


class WeakPassword(InvalidInput):
    """The password is too short, too long, or among the first that would be guessed."""

    code = "weak_password"


def accept(password: str, about: Sequence[str]) -> str:
    """The password in NFKC, if it is good enough for a person of whom `about` (name, e-mail) is known. Raises WeakPassword."""
    normal = normalised(password)
    if not CHARACTERS_MIN <= len(normal) <= CHARACTERS_MAX:
        raise WeakPassword(
            f"A password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters.", pointer="/password"
        )
    known = ["mizan", *(part for text in about for part in (text, *text.replace("@", " ").split()))]
    with _estimating:
        score = zxcvbn(normal[:JUDGED_CHARACTERS_MAX], user_inputs=known)["score"]
    if score < SCORE_MIN:
        raise WeakPassword(
            "The password is easy to guess: it is common, a pattern, or made of your name.",
            pointer="/password",
        )
    return normal


def normalised(password: str) -> str:
    """The password as it is hashed: NFKC, so that every keyboard spells it alike (NIST SP 800-63B §3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def hashed(normal: str) -> str:
    """The hash to store of a password that `accept` gave. Raises Unavailable when too many are computed."""
    with _turn():
        return _HASHER.hash(normal)


def verify(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one; for None (nobody's) it takes as long and is False. Raises Unavailable."""
    with _turn():
        nobodys = _nobodys()
        try:
            fits = _HASHER.verify(stored or nobodys, normalised(password)[: CHARACTERS_MAX + 1])
        except (VerificationError, InvalidHashError):
            return False
    return fits and stored is not None


def outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)


@cache
def _nobodys() -> str:
    return _HASHER.hash(token_urlsafe(32))


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=WAIT_SECONDS_MAX):
        raise Unavailable("Too many log-ins at this moment.")
    try:
        yield
    finally:
        _turns.release()
