"""The port of the rails: what every way of paying out can do, and how it says what became of a payment.

A rail is asked under an attempt's id, which is its idempotency key and its end-to-end id: the same attempt sent twice is
one payment at most. It answers with reports. Nothing that a network does is an exception here: a time-out is `unknown`, and
only what certainly never left is `not_sent`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Protocol
from uuid import UUID

from products.members.payees import Rail as PayeeKind

ReportState = Literal[
    "not_sent", "not_found", "unknown", "accepted", "in_transit", "paid", "failed", "returned"
]
"""What a rail says of a payment.

``not_sent``: it certainly never left us, and may be sent again. ``not_found``: asked about, the rail has never heard of it.
``unknown``: it may be there or not (a time-out, a broken answer). ``accepted``: the rail has it. ``in_transit``: it is on its
way to the payee. ``paid``, ``failed``: what the rail calls final, though `failed` or ``returned`` may follow `paid` for days.
"""

FailureReason = Literal[
    "payee_unknown",
    "payee_closed",
    "payee_limit",
    "name_mismatch",
    "insufficient_float",
    "rail_limit",
    "refused",
    "expired",
    "other",
]
"""Why a payment failed or came back, in one vocabulary for all rails; the rail's own code stands beside it."""


@dataclass(frozen=True, slots=True)
class RailPayee:
    """Who is to be paid and where, in the clear: `destination` as in `products.members.payees.NewPayee`."""

    name: str
    kind: PayeeKind
    destination: Mapping[str, str]

    def __repr__(self) -> str:
        return f"RailPayee({self.kind})"  # names and numbers stay out of logs and traces


@dataclass(frozen=True, slots=True)
class Instruction:
    """One payment that a rail is asked to make: ``amount`` minor units of ``currency``. ``reference`` is what the payee may be
    shown (``pay_…``)."""

    attempt: UUID
    reference: str
    amount: int
    currency: str
    payee: RailPayee


@dataclass(frozen=True, slots=True)
class Sent:
    """A payment that left, to be asked about. ``rail_reference`` is the rail's own id, where it gave one.

    ``sent_at``: of the last sending. ``known``: whether the rail is known to have it already.
    """

    attempt: UUID
    batch: UUID
    rail_reference: str | None
    sent_at: datetime
    known: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a rail says of one payment, found by ``attempt`` or by ``rail_reference``.

    ``at``: when it happened by the rail's clock. ``code``: the rail's own word. ``amount`` and ``currency``: what it says it
    paid, to compare; ``fee``: what it took for itself, minor units of the same currency. ``ask_again_at``: when it will know
    more, where it says so; asked about then, even if what it says now is final. ``of_payment``: `unknown` or `not_sent` for a reason
    of this payment's own, which says nothing of whether the rail can be reached.
    """

    state: ReportState
    attempt: UUID | None = None
    rail_reference: str | None = None
    at: datetime | None = None
    reason: FailureReason | None = None
    code: str | None = None
    amount: int | None = None
    currency: str | None = None
    fee: int | None = None
    ask_again_at: datetime | None = None
    of_payment: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What a rail says of a payee before anything is paid: whether it is there, and whether the name is theirs."""

    reachable: bool
    name: Literal["matches", "differs", "not_checked"]
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """What came in on a rail's hook: the method, the path after ``/hooks/rails/{slug}/``, headers (lower-case) and the raw body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    address: str


class CallbackRefused(Exception):
    """The callback is not proven to be the rail's: the edge answers 401 and keeps nothing."""


class CallbackMalformed(Exception):
    """An authentic callback that can't be read: the edge answers 400 and keeps it."""


class ListUnavailable(Exception):
    """The rail's own list can't be had to its end: a list that is cut off must not pass for the whole."""


class Rail(Protocol):
    """One way of paying out, as configured. Adapters lie in `integrations.rails`; none of them touches the books."""

    together_max: int
    """How many instructions one `submit` takes at most."""
    asks_after_seconds: float
    """How long after sending a payment without a final word is first asked about."""
    forgets_after_seconds: float
    """Only when `ask` says ``not_found`` so long after the last sending may the same attempt be sent again."""

    def submit(self, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> list[Report]:
        """Ask for the payments; one report for each, in order. Sent again with the same ids, nothing is paid twice."""
        ...

    def ask(self, payments: Sequence[Sent]) -> list[Report]:
        """What became of payments; one report for each, in order."""
        ...

    def check(self, payee: RailPayee) -> Checked | None:
        """Whether the payee is there and of that name; None where the rail can't tell, or can't be reached."""
        ...

    def read(self, callback: Callback) -> list[Report]:
        """What a callback says. Raises `CallbackRefused`, `CallbackMalformed`."""
        ...

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """The rail's own list of payments that it knows from a time on: what the books are tied to.

        Raises `ListUnavailable`, at once or after some reports, when it can't be had whole."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...
