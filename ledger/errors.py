"""The one tree of errors. Every error that Mizan raises on purpose is a `MizanError`.

MizanError
├── InvalidInput          422   something that the caller sent can't be understood
│   ├── InvalidId
│   ├── InvalidMoney
│   └── InvalidPosting
├── NotFound              404   what was named isn't there, or may not be seen
├── Conflict              409   the state of the books forbids it
│   ├── PeriodError
│   ├── AccountError
│   └── HoldError
└── Unavailable           503   the database can't be asked now
"""

from typing import ClassVar


class MizanError(Exception):
    """Base of all errors raised on purpose.

    ``code`` is stable and published (snake case), ``status`` the HTTP status that fits, ``pointer`` an RFC 6901 JSON
    pointer to the guilty part of the input, where there is one. ``detail`` is for people and holds no personal data.
    """

    code: str = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, code: str | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        if code is not None:
            self.code = code


class InvalidInput(MizanError):
    """What the caller sent can't be understood or breaks a rule of its own."""

    code = "invalid_request"
    status = 422


class InvalidId(InvalidInput):
    """Not an id of the expected kind."""

    code = "invalid_id"


class InvalidMoney(InvalidInput):
    """An amount outside ±(2^53−1), not an integer, in an unknown currency, or mixed with another currency."""

    code = "invalid_money"


class InvalidPosting(InvalidInput):
    """A transaction that could never be posted, whatever the state of the books."""

    code = "invalid_posting"


class NotFound(MizanError):
    """What was named is not there, or the caller may not see it."""

    code = "not_found"
    status = 404


class Conflict(MizanError):
    """The state of the books forbids it."""

    code = "conflict"
    status = 409


class PeriodError(Conflict):
    """A period that can't be closed or reopened as asked."""

    code = "period_conflict"


class AccountError(Conflict):
    """An account that can't be opened, closed or limited as asked."""

    code = "account_conflict"


class HoldError(Conflict):
    """A hold that can't be placed or ended as asked."""

    code = "hold_conflict"


class Unavailable(MizanError):
    """The database can't be asked now; the same request may succeed later."""

    code = "unavailable"
    status = 503
