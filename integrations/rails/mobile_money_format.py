"""What the GSMA Mobile Money API 1.2 says, read into what the port of the rails says. Pure: no network, no clock.

Sources: the API's *Fundamentals* (amounts, errors, request states, missing responses) and *Service Definition* (transactions,
accounts). Names of states and errors are compared without regard to case: the specification writes ``DuplicateRequest``,
most gateways ``duplicateRequest``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

from ledger.errors import InvalidMoney
from ledger.money import AMOUNT_MAX, exponent, in_major_units
from products.payouts.rails import FailureReason, Report, ReportState

AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,4})?", re.ASCII)
"""*Amount validation*: no sign, no leading zero, at most 18 digits before the point and 4 after it."""

DUPLICATE: Final = "duplicaterequest"
RATE_LIMITED: Final = "ratelimiterror"
DECLINED: Final = "requestdeclined"

_CODE_CHARACTERS_MAX: Final = 64

_STATES: Final[Mapping[str, ReportState]] = {
    "completed": "paid",
    "successful": "paid",
    "success": "paid",
    "pending": "in_transit",
    "initiated": "in_transit",
    "created": "in_transit",
    "accepted": "in_transit",
    "processing": "in_transit",
    "held": "in_transit",
    "failed": "failed",
    "declined": "failed",
    "rejected": "failed",
    "cancelled": "failed",
    "expired": "failed",
    "reversed": "returned",
    "returned": "returned",
}
"""`transactionStatus` is each provider's own word; another than these is `unknown` until somebody has looked."""

_REASONS: Final[Mapping[str, FailureReason]] = {
    "identifiererror": "payee_unknown",
    "incorrectstate": "payee_closed",
    "maxbalanceexceeded": "payee_limit",
    "dailyvolumelimitexceeded": "payee_limit",
    "dailyvaluelimitexceeded": "payee_limit",
    "weeklyvolumelimitexceeded": "payee_limit",
    "weeklyvaluelimitexceeded": "payee_limit",
    "monthlyvolumelimitexceeded": "payee_limit",
    "monthlyvaluelimitexceeded": "payee_limit",
    "accountmaxtotalvalueexceeded": "payee_limit",
    "accountmaxtotalvolumeexceeded": "payee_limit",
    "lessthantransactionminvalue": "rail_limit",
    "greaterthantransactionmaxvalue": "rail_limit",
    "insufficientfunds": "insufficient_float",
    "expired": "expired",
}
_REFUSING_CATEGORIES: Final = frozenset({"businessrule", "validation", "authorisation"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An errors object: `category` and `code` in lower case, to compare; `said` the provider's own spelling of the code."""

    category: str
    code: str
    said: str

    @property
    def reason(self) -> FailureReason:
        """The reason in the vocabulary of all rails."""
        return _REASONS.get(self.code) or ("refused" if self.category in _REFUSING_CATEGORIES else "other")


def amount_text(amount: int, currency: str) -> str:
    """Minor units as the API's decimal string: 150000 PHP is ``1500.00``, 1500 RWF is ``1500``, 1500 KWD is ``1.500``."""
    if not 0 <= amount <= AMOUNT_MAX:
        raise InvalidMoney("an amount on this rail is at least 0 and at most 2^53−1")
    return in_major_units(amount, exponent(currency))


def amount_of(written: str, currency: str) -> int:
    """The minor units of a decimal string. Raises `InvalidMoney` for what the API forbids and for parts of a minor unit."""
    if AMOUNT.fullmatch(written) is None:
        raise InvalidMoney("not an amount of the Mobile Money API")
    places = exponent(currency)
    whole, _, decimals = written.partition(".")
    if decimals[places:].strip("0"):
        raise InvalidMoney(f"{currency} has {places} decimal places")
    return int(whole + decimals[:places].ljust(places, "0"))


def text_in(body: object, name: str) -> str | None:
    """A property of an object, where it is a text that isn't empty."""
    value = body.get(name) if isinstance(body, Mapping) else None
    return value if isinstance(value, str) and value else None


def refusal_in(body: object) -> Refusal | None:
    """The errors object in an answer; None where it isn't one, as when a proxy answers in the provider's place."""
    category, code = text_in(body, "errorCategory"), text_in(body, "errorCode")
    if category is None or code is None:
        return None
    return Refusal(category.replace(" ", "").lower(), code.lower(), code[:_CODE_CHARACTERS_MAX])


def resource_in(body: object) -> str | None:
    """The path, relative to the API, of what a ``/responses`` answer links to: a transaction or a request's state.

    Only the end of the link is used. Where it points besides (another host, another version) is not ours to follow.
    """
    link = text_in(body, "link")
    if link is None:
        return None
    try:
        steps = urlsplit(link).path.rstrip("/").split("/")
    except ValueError:
        return None
    if len(steps) < 2 or steps[-2] not in ("transactions", "requeststates") or not steps[-1]:
        return None
    return f"{steps[-2]}/{unquote(steps[-1])}"


def failure(attempt: UUID | None, refusal: Refusal | None, at: datetime | None = None) -> Report:
    """A payment that failed, and why."""
    return Report(
        state="failed",
        attempt=attempt,
        at=at,
        reason=refusal.reason if refusal else "other",
        code=refusal.said if refusal else None,
    )


def transaction_report(body: object, attempt: UUID | None = None) -> Report:
    """What a transaction object says. ``attempt``: the one asked about; without it, the one that the object names, and where it
    names none, the provider's own reference.

    `unknown` where it can't be understood, and where it is another payment than the one asked about.
    """
    named = attempt_in(body)
    if attempt is not None and named is not None and named != attempt:
        return Report(state="unknown", attempt=attempt, code="another_payment", of_payment=True)
    status = (text_in(body, "transactionStatus") or "").lower()
    report = Report(
        state=_STATES.get(status, "unknown"),
        attempt=attempt or named,
        rail_reference=text_in(body, "transactionReference") if attempt is None and named is None else None,
        at=time_in(body),
        code=status[:_CODE_CHARACTERS_MAX] or "no_status",
        of_payment=status not in _STATES,
    )
    if report.state == "failed":
        report = replace(report, reason=_REASONS.get(status, "refused" if status == "declined" else "other"))
    if report.state == "returned":
        report = replace(report, reason="other")
    try:
        currency = text_in(body, "currency") or ""
        return replace(
            report,
            amount=amount_of(text_in(body, "amount") or "", currency),
            currency=currency,
            fee=_fees_in(body, currency),
        )
    except InvalidMoney:
        # that nothing was paid needs no amount
        return (
            report
            if report.state == "failed"
            else replace(report, state="unknown", reason=None, code="no_amount", of_payment=True)
        )


def attempt_in(body: object) -> UUID | None:
    """The attempt that a transaction object names: we send it as `requestingOrganisationTransactionReference`."""
    named = text_in(body, "requestingOrganisationTransactionReference")
    try:
        return UUID(named) if named else None
    except ValueError:
        return None


def time_in(body: object) -> datetime | None:
    """When a transaction last changed, by the provider's clock; None where it doesn't say, or without a zone."""
    written = text_in(body, "modificationDate") or text_in(body, "creationDate")
    try:
        at = datetime.fromisoformat(written) if written else None
    except ValueError:
        return None
    return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None


def _fees_in(body: object, currency: str) -> int | None:
    """What the provider took for itself: the sum of the fees in the payment's own currency; None where there is none."""
    fees = body.get("fees") if isinstance(body, Mapping) else None
    if not isinstance(fees, list):
        return None
    written = [text_in(fee, "feeAmount") for fee in fees if text_in(fee, "feeCurrency") == currency]
    return sum(amount_of(one, currency) for one in written if one) if written else None
