"""Paying out to mobile wallets: the disbursement of the GSMA Mobile Money API 1.2.

The attempt's id is the client correlation id of every sending, so the provider refuses a second payment (``DuplicateRequest``),
and what became of a lost answer is found under it (``GET /responses/{id}``). Nothing in a callback proves who sent it, so a
callback moves no money: it is a reason to ask the provider now, and what the provider answers is what is reported.

A payment's `rail_reference` is what the answer to its sending gave: the place of the request's state, or the transaction's own
reference where it was made at once. It never changes; a payment whose answer was lost has none, and its attempt's id finds it.
"""

import base64
import hashlib
import hmac
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from integrations.rails.mobile_money_format import (
    DECLINED,
    DUPLICATE,
    RATE_LIMITED,
    Refusal,
    amount_text,
    failure,
    refusal_in,
    resource_in,
    text_in,
    transaction_report,
)
from integrations.rails.mobile_money_options import SECRETS, Keys, MobileMoneyOptions
from integrations.rails.mobile_money_wire import Answer, NotSent, Trust, Unclear, Wire, content_hash_fits
from integrations.rails.names import is_masked, is_same_name
from integrations.rails.setting import InvalidRailOptions, Setting
from integrations.strict_json import NotStrictJson, loads
from ledger.clock import Clock, rfc3339
from products.payouts.rails import (
    Callback,
    CallbackMalformed,
    CallbackRefused,
    Checked,
    Instruction,
    ListUnavailable,
    RailPayee,
    Report,
    Sent,
)

__all__ = ["CHECKS_PAYEES", "OPTIONS", "SECRETS", "MobileMoney", "build"]

OPTIONS: Final = MobileMoneyOptions
CHECKS_PAYEES: Final = True
HOPS_MAX: Final = 4
"""From a correlation id over a request's state to its transaction are three; a provider that leads us on is `unknown`."""
CONFIRMING_SECONDS_MAX: Final = 4.0
"""How long a callback waits for the provider's confirmation: it waits for our answer meanwhile."""
CONFIRMING_AT_ONCE_MAX: Final = 8
"""A provider that is slow and calls a lot must not take every thread that serves others; the rest is asked about later."""
PAGES_MAX: Final = 100_000
_POLLED: Final = "requeststates/"
_DISBURSEMENT: Final = "disbursement"
_PATH: Final = re.compile(r"([0-9a-f]{32})/([A-Za-z0-9_-]{43})", re.ASCII)

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def build(options: Mapping[str, object], secrets: Mapping[str, str], setting: Setting) -> "MobileMoney":
    """The rail of a row. Raises `InvalidRailOptions`: keys too short, certificates that aren't there, no TLS in production."""
    read = MobileMoneyOptions.model_validate(dict(options))
    if setting.environment == "production" and not read.is_encrypted:
        raise InvalidRailOptions("base_url: in production a provider is reached by https:// only")
    try:
        keys = Keys.of(secrets)
        wire = Wire(
            read.base_url,
            api_key=keys.api,
            client_id=read.client_id,
            clock=setting.clock,
            trust=Trust(read.authorities_file, read.certificate_file, read.certificate_key_file),
            connections_max=read.at_once,
            timeout_seconds=read.timeout_seconds,
        )
    except (ValueError, OSError) as error:
        raise InvalidRailOptions(str(error)) from None
    callback_url = f"{setting.public_url.rstrip('/')}/hooks/rails/{setting.slug}"
    return MobileMoney(read, keys, wire, callback_url, setting.clock)


class MobileMoney:
    """The rail of one provider, as configured; see `products.payouts.rails.Rail`. Thread-safe."""

    def __init__(
        self, options: MobileMoneyOptions, keys: Keys, wire: Wire, callback_url: str, clock: Clock
    ) -> None:
        self.together_max = options.together_max
        self.asks_after_seconds = options.asks_after_seconds
        self.forgets_after_seconds = options.forgets_after_seconds
        self._options = options
        self._keys = keys
        self._wire = wire
        self._callback_url = callback_url
        self._clock = clock
        self._confirming = BoundedSemaphore(min(CONFIRMING_AT_ONCE_MAX, options.at_once))
        self._threads = ThreadPoolExecutor(options.at_once, thread_name_prefix="mobile-money")

    def submit(self, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> list[Report]:
        """Ask for the payments, several at once; what isn't begun within `batch_seconds` is `not_sent` (``no_time``)."""
        del batch, asked_on  # each payment is a request of its own, and the provider makes it at once
        return self._together(
            instructions,
            self._submit,
            lambda one: Report("not_sent", one.attempt, code="no_time", of_payment=True),
        )

    def ask(self, payments: Sequence[Sent]) -> list[Report]:
        """What became of payments; what isn't asked within `batch_seconds` stays `unknown` (``no_time``)."""
        return self._together(
            payments,
            self._ask,
            lambda one: Report("unknown", one.attempt, one.rail_reference, code="no_time", of_payment=True),
        )

    def check(self, payee: RailPayee) -> Checked | None:
        """Whether the wallet takes money, and whether its holder's name is the payee's (`names.is_same_name`).

        An *unregistered* number is not reachable: money sent there becomes a voucher for whoever comes.
        """
        wallet = f"accounts/msisdn/{quote(_msisdn(payee), safe='')}"
        try:
            status = self._wire.get(f"{wallet}/status")
            refusal = refusal_in(status.body)
            if status.status == HTTPStatus.NOT_FOUND and refusal is not None:
                return Checked(reachable=False, name="not_checked", code=refusal.said)
            word = text_in(status.body, "accountStatus") if status.status == HTTPStatus.OK else None
            if word is None:
                return None
            if word.lower() != "available":
                return Checked(reachable=False, name="not_checked", code=word[:64])
        except (NotSent, Unclear):
            return None
        return self._named(wallet, payee)

    def read(self, callback: Callback) -> list[Report]:
        """What the provider, asked now under the correlation id that the callback names, says of the payment.

        Proven are the path, which is each payment's own, and the API key. Where the provider can't be asked at once the report is
        `unknown` (``callback_unconfirmed``), and the payment is to be asked about again, paid or not.

        Raises `CallbackRefused`, `CallbackMalformed`.
        """
        attempt = self._proven(callback)
        try:
            body = loads(callback.body)
        except NotStrictJson as error:
            raise CallbackMalformed(str(error)) from None
        if not isinstance(body, Mapping):
            raise CallbackMalformed("it is not an object")
        named = text_in(body, "requestingOrganisationTransactionReference")
        correlated = callback.headers.get("x-correlationid")
        if any(one is not None and not _is(one, attempt) for one in (named, correlated)):
            raise CallbackMalformed("it names another payment than its path")
        report = self._confirmed(attempt)
        if report.state == "not_found":
            return []  # whoever called, the provider knows nothing of it
        if report.state == "unknown":
            return [replace(report, code="callback_unconfirmed", ask_again_at=self._clock.now())]
        return [report]

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """The disbursements from our account that the provider created in the time, both ends included, newest first.

        Raises `ListUnavailable` when a page can't be had: a list that is cut off is no list.
        """
        size, offset, seen = self._options.page_size, 0, set[str]()
        for _ in range(PAGES_MAX):
            page = self._page(since, until, offset, size)
            # What is made meanwhile pushes the rest down: a page then begins with what the last one ended with.
            fresh = {reference: one for reference, one in page.items() if reference not in seen}
            if page and not fresh:
                raise ListUnavailable("the provider gives the same page again")
            for one in fresh.values():
                if (text_in(one, "type") or _DISBURSEMENT).lower() == _DISBURSEMENT:
                    yield transaction_report(one)
            seen |= fresh.keys()
            if len(page) < size:
                return
            offset += len(page)
        raise ListUnavailable("the list has no end")

    def close(self) -> None:
        """Give back threads and connections."""
        self._threads.shutdown()
        self._wire.close()

    def callback_path(self, attempt: UUID) -> str:
        """Where the provider is to put what became of this payment, after ``/hooks/rails/{slug}/``."""
        return f"{attempt.hex}/{_token(self._keys.paths[0], attempt)}"

    def _together(
        self, items: Sequence[_Item], work: Callable[[_Item], _Done], late: Callable[[_Item], _Done]
    ) -> list[_Done]:
        ends_at = time.monotonic() + self._options.batch_seconds

        def in_time(item: _Item) -> _Done:
            return work(item) if time.monotonic() < ends_at else late(item)

        return list(self._threads.map(in_time, items))

    def _submit(self, instruction: Instruction) -> Report:
        attempt = instruction.attempt
        headers = {
            "x-correlationid": str(attempt),
            "x-callback-url": f"{self._callback_url}/{self.callback_path(attempt)}",
        }
        try:
            answer = self._wire.post(
                f"transactions/type/{_DISBURSEMENT}", self._request(instruction), headers
            )
        except NotSent as error:
            return Report("not_sent", attempt, code=str(error))
        except Unclear as error:
            return Report("unknown", attempt, code=str(error))
        if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
            return self._accepted(attempt, answer)
        return self._not_accepted(attempt, answer)

    def _request(self, instruction: Instruction) -> bytes:
        """The body, byte for byte the same for every sending of an attempt."""
        operator = instruction.payee.destination.get("operator")
        credit = [{"key": "msisdn", "value": _msisdn(instruction.payee)}]
        if operator:
            credit.append({"key": self._options.operator_key, "value": operator})
        return json.dumps(
            {
                "amount": amount_text(instruction.amount, instruction.currency),
                "currency": instruction.currency,
                "creditParty": credit,
                "debitParty": [one.model_dump() for one in self._options.debit_party],
                "requestingOrganisationTransactionReference": str(instruction.attempt),
                "descriptionText": instruction.reference,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()

    def _accepted(self, attempt: UUID, answer: Answer) -> Report:
        """A request's state (asynchronous), or the transaction itself (synchronous)."""
        if text_in(answer.body, "transactionStatus") is not None:
            made = text_in(answer.body, "transactionReference")
            return replace(transaction_report(answer.body, attempt), rail_reference=made)
        state, reference = _state(answer.body), text_in(answer.body, "serverCorrelationId")
        if reference is None or state not in ("pending", "completed", "failed"):
            return Report("unknown", attempt, code="answer_not_understood", of_payment=True)
        if state == "pending":
            return Report("accepted", attempt, _POLLED + reference)
        return self._ask(replace(_lost(attempt), rail_reference=_POLLED + reference))

    def _not_accepted(self, attempt: UUID, answer: Answer) -> Report:
        """An error: refused before anything was done (`not_sent`), refused for good (`failed`), or said by whoever (`unknown`)."""
        refusal = refusal_in(answer.body)
        code = refusal.said if refusal else f"http_{answer.status}"
        match answer.status:
            case HTTPStatus.UNAUTHORIZED if refusal is not None and refusal.code == DECLINED:
                return self._refused(attempt, refusal)
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN | HTTPStatus.TOO_MANY_REQUESTS:
                return Report("not_sent", attempt, code=code)
            case HTTPStatus.NOT_FOUND if refusal is None:
                return Report("not_sent", attempt, code=code)
            case HTTPStatus.SERVICE_UNAVAILABLE if refusal is not None and "retry-after" in answer.headers:
                # "The request cannot be performed" is the provider's word only with its errors object: a proxy says 503 as well
                # when the payment has been made and only the answer got lost.
                return Report("not_sent", attempt, code="service_unavailable")
            case HTTPStatus.BAD_REQUEST | HTTPStatus.NOT_FOUND if refusal is not None:
                return self._refused(attempt, refusal)
            case _:
                return Report("unknown", attempt, code=code)

    def _refused(self, attempt: UUID, refusal: Refusal) -> Report:
        """A refusal is final only when the provider has nothing under the attempt's id.

        It may be an earlier sending that it knows, whether it says so (``DuplicateRequest``) or stumbles over something else first.
        """
        if refusal.code == RATE_LIMITED:
            return Report("not_sent", attempt, code=refusal.said)
        there = self._ask(_lost(attempt))
        if there.state != "not_found":
            return there
        if refusal.code == DUPLICATE:
            return Report("unknown", attempt, code=refusal.said, of_payment=True)
        return failure(attempt, refusal)

    def _ask(self, payment: Sent, ends_at: float = math.inf) -> Report:
        try:
            report = self._found(payment, ends_at)
        except (NotSent, Unclear) as error:
            report = Report("unknown", payment.attempt, code=str(error))
        return replace(report, rail_reference=payment.rail_reference)

    def _found(self, payment: Sent, ends_at: float) -> Report:
        """Go from what we have (a request's state, a transaction, or only the correlation id) to what became of the payment."""
        attempt, lost = payment.attempt, f"responses/{payment.attempt}"
        place = _place(payment.rail_reference) or lost
        been: set[str] = set()
        for _ in range(HOPS_MAX):
            if place in been:
                break
            been.add(place)
            kind, _, name = place.partition("/")
            left = ends_at - time.monotonic()
            if left <= 0:
                break
            answer = self._wire.get(f"{kind}/{quote(name, safe='')}", seconds_max=left)
            if answer.status != HTTPStatus.OK:
                if place != lost and answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                    place = lost  # forgotten, or polled more often than the provider allows
                    continue
                return _not_told(payment, answer)
            if kind == "transactions":
                return transaction_report(answer.body, attempt)
            if kind == "responses":
                place = resource_in(answer.body) or place
                continue
            match _state(answer.body):
                case "pending":
                    return Report("in_transit", attempt)
                case "failed":
                    error = answer.body.get("errorReference") if isinstance(answer.body, Mapping) else None
                    refusal = refusal_in(error)
                    if refusal is None or refusal.code != DUPLICATE:
                        return failure(attempt, refusal)
                    place = lost  # this request failed because the payment is there by another
                case "completed":
                    reference = text_in(answer.body, "objectReference")
                    place = f"transactions/{reference}" if reference else lost
                case _:
                    break
        return Report("unknown", attempt, code="answer_not_understood", of_payment=True)

    def _proven(self, callback: Callback) -> UUID:
        """The attempt whose own path this is, called with one of our keys. Raises `CallbackRefused`."""
        found = _PATH.fullmatch(callback.path)
        if callback.method != "PUT" or found is None:
            raise CallbackRefused("not a callback")
        attempt = UUID(found[1])
        # Every comparison is made, and in constant time: how long a refusal takes tells nothing.
        path_fits = [_equal(_token(key, attempt), found[2]) for key in self._keys.paths]
        key_fits = [_equal(key, callback.headers.get("x-api-key", "")) for key in self._keys.callbacks]
        if not any(path_fits) or not any(key_fits):
            raise CallbackRefused("not proven")
        if not content_hash_fits(callback.headers.get("x-content-hash"), callback.body):
            raise CallbackRefused("the body is not the one that was hashed")
        return attempt

    def _confirmed(self, attempt: UUID) -> Report:
        """What the provider says of a payment that it has called about."""
        if not self._confirming.acquire(blocking=False):
            return Report("unknown", attempt)
        try:
            return self._ask(_lost(attempt), time.monotonic() + CONFIRMING_SECONDS_MAX)
        finally:
            self._confirming.release()

    def _named(self, wallet: str, payee: RailPayee) -> Checked:
        try:
            answer = self._wire.get(f"{wallet}/accountname")
        except (NotSent, Unclear) as error:
            return Checked(reachable=True, name="not_checked", code=str(error))
        name = answer.body.get("name") if isinstance(answer.body, Mapping) else None
        parts = [text_in(name, part) for part in ("firstName", "middleName", "lastName")]
        spelled = [
            text_in(name, "fullName"),
            text_in(name, "nativeName"),
            " ".join(part for part in parts if part) or None,
        ]
        names = [one for one in spelled if one is not None and not is_masked(one)]
        if answer.status != HTTPStatus.OK or not names:
            return Checked(reachable=True, name="not_checked")
        same = any(is_same_name(one, payee.name) for one in names)
        return Checked(reachable=True, name="matches" if same else "differs")

    def _page(self, since: datetime, until: datetime, offset: int, size: int) -> dict[str, object]:
        """The transactions of a page by their references, in order."""
        account = "$".join(
            f"{quote(one.key, safe='')}@{quote(one.value, safe='')}" for one in self._options.debit_party
        )
        if len(self._options.debit_party) == 1:
            account = account.replace("@", "/", 1)
        try:
            answer = self._wire.get(
                f"accounts/{account}/transactions",
                {
                    "fromDateTime": rfc3339(since),
                    "toDateTime": rfc3339(until),
                    "transactionType": _DISBURSEMENT,
                    "offset": str(offset),
                    "limit": str(size),
                },
            )
        except (NotSent, Unclear) as error:
            raise ListUnavailable(str(error)) from error
        if answer.status != HTTPStatus.OK or not isinstance(answer.body, list):
            raise ListUnavailable(f"http_{answer.status}")
        page = {reference: one for one in answer.body if (reference := text_in(one, "transactionReference"))}
        if len(page) < len(answer.body):
            raise ListUnavailable("the provider lists something without a reference, or twice")
        return page


def _not_told(payment: Sent, answer: Answer) -> Report:
    """Nothing under the correlation id: `not_found` only by the provider's own errors object, and only if it never had it."""
    refusal = refusal_in(answer.body)
    if answer.status == HTTPStatus.NOT_FOUND and refusal is not None:
        if payment.rail_reference is None:
            return Report("not_found", payment.attempt, code=refusal.said)
        return Report("unknown", payment.attempt, code="forgotten", of_payment=True)
    code = refusal.said if refusal else f"http_{answer.status}"
    return Report("unknown", payment.attempt, code=code)


def _lost(attempt: UUID) -> Sent:
    """A payment of which only the attempt's id is known."""
    return Sent(attempt, attempt, None, datetime.now(UTC))


def _place(rail_reference: str | None) -> str | None:
    """Where to ask: we keep a request's state as ``requeststates/{id}``, a transaction by its bare reference."""
    if rail_reference is None or rail_reference.startswith(_POLLED):
        return rail_reference
    return f"transactions/{rail_reference}"


def _state(body: object) -> str:
    return (text_in(body, "status") or "").lower()


def _msisdn(payee: RailPayee) -> str:
    return payee.destination["phone"].removeprefix("+")


def _token(key: str, attempt: UUID) -> str:
    digest = hmac.new(key.encode(), b"mobile money callback\x00" + attempt.bytes, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _equal(ours: str, theirs: str) -> bool:
    return hmac.compare_digest(ours.encode(), theirs.encode(errors="replace"))


def _is(written: str, attempt: UUID) -> bool:
    return written.strip().lower() == str(attempt)
