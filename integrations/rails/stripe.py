"""Stripe's API as the rails use it: the only module that imports `stripe`.

The API's version is pinned, every request that moves money carries an idempotency key made of the attempt's id, and nothing is
repeated by the library: what a lost answer meant is asked, not guessed. There is no global state and no proxy from the
environment. Answers come out as `stripe_objects`, and every way of not succeeding as `NotDone`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
import stripe
from pydantic import BaseModel, ValidationError
from stripe.params import PayoutCreateParams, PayoutListParamsCreated, TransferListParamsCreated

from integrations.rails import stripe_reasons
from integrations.rails.stripe_objects import (
    ATTEMPT,
    RAIL,
    REFERENCE,
    TRANSFER,
    WHY,
    Account,
    ExternalAccount,
    Payout,
    Transfer,
)
from products.payouts.rails import FailureReason, Instruction, ReportState

API_VERSION: Final = "2026-10-28.endive"
"""The version whose shapes we read: Stripe answers in it whatever the account's own, and whatever the library's next one is."""
CONNECT_SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 4 * 2**20
PAGE: Final = 100

_Object = TypeVar("_Object", bound=BaseModel)

stripe.enable_telemetry = False  # or it writes an id of this machine into the home directory, and sends it


class NotDone(Exception):
    """What Stripe did not do, or did without our hearing of it: the state of the request, where it refused why, and a code."""

    def __init__(self, state: ReportState, reason: FailureReason | None, code: str) -> None:
        super().__init__(f"{state}: {code}")
        self.state = state
        self.reason = reason
        self.code = code

    @property
    def is_general(self) -> bool:
        """Whether the next request would fare no better: nobody there, no answer, too many, a key that is refused."""
        return self.state == "not_sent" or self.code == _NO_ANSWER


_NO_ANSWER: Final = "no_answer"
_AT_WORK: Final = frozenset({"idempotency_key_in_use", "lock_timeout"})
"""Codes that speak of another request on the same thing, under whatever status: what becomes of that one is not known."""


class _NoAnswer(stripe.APIConnectionError):
    """The request may have arrived, and its answer didn't."""

    def __init__(self, message: str) -> None:
        stripe.StripeError.__init__(self, message)
        self.should_retry = False


class _NeverLeft(_NoAnswer):
    """No connection was made: Stripe has not heard of the request."""


class _Http(stripe.HTTPClient):
    """How requests travel: with a deadline, a limit on the answer, no proxy from the environment, no redirects."""

    name = "httpx"

    def __init__(self, answer_seconds_max: float) -> None:
        super().__init__()
        self._seconds_max = answer_seconds_max
        connect = min(CONNECT_SECONDS_MAX, answer_seconds_max)
        self._http = httpx.Client(timeout=httpx.Timeout(answer_seconds_max, connect=connect), trust_env=False)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: str | bytes | None = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[Any, int, Mapping[str, str]]:  # Any: the library takes bytes here and is typed as text
        """One request, once. Raises `_NeverLeft`, `_NoAnswer`."""
        until = monotonic() + self._seconds_max
        try:
            with self._http.stream(method.upper(), url, headers=headers, content=post_data) as answer:
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX or monotonic() > until:
                        raise _NoAnswer("an answer without end")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NeverLeft(f"no connection: {type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise _NoAnswer(f"no answer: {type(error).__name__}") from error
        return bytes(body), answer.status_code, answer.headers

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()


@contextmanager
def _judged() -> Iterator[None]:
    """Turns the library's errors, and answers that are none, into `NotDone`."""
    try:
        yield
    except stripe.StripeError as error:
        raise NotDone(*_meaning(error)) from error
    except (ValidationError, AttributeError, TypeError, KeyError, ValueError) as error:
        # The library believes what it is sent: a broken answer surfaces wherever it is read.
        raise NotDone("unknown", None, "broken_answer") from error


def _meaning(error: stripe.StripeError) -> tuple[ReportState, FailureReason | None, str]:
    code = _code_of(error)
    match error:
        case _NeverLeft():
            return "not_sent", None, "unreachable"
        case stripe.APIConnectionError():
            return "unknown", None, _NO_ANSWER
        case _ if code in _AT_WORK:
            return "unknown", None, code
        case stripe.IdempotencyError():
            return "unknown", None, "idempotency_error"
        case stripe.RateLimitError():
            return "not_sent", None, code or "rate_limit"
        case stripe.AuthenticationError():
            return "not_sent", None, code or "api_key_refused"
        case stripe.PermissionError() if code != "account_invalid":
            return "not_sent", None, code or "not_permitted"
        case stripe.CardError() | stripe.InvalidRequestError() | stripe.PermissionError():
            code = code or "invalid_request_error"
            return "failed", stripe_reasons.of_request(code), code
        case _:
            return "unknown", None, code or f"http_{error.http_status}"


def _code_of(error: stripe.StripeError) -> str | None:
    said = error.json_body.get("error") if isinstance(error.json_body, dict) else None
    code = said.get("code") if isinstance(said, dict) else None
    return code if isinstance(code, str) else None


class StripeApi:
    """The requests that the rails make, each sent once. All raise `NotDone`; amounts are in Stripe's units."""

    def __init__(
        self,
        api_key: str,
        rail: str,
        *,
        answer_seconds_max: float,
        api_base: str | None = None,
        statement_descriptor: str | None = None,
    ) -> None:
        self._http = _Http(answer_seconds_max)
        self._rail = rail
        self._descriptor = statement_descriptor
        self._v1 = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=0,
            http_client=self._http,
        ).v1

    @_judged()
    def transfer_to(self, account: str, one: Instruction, amount: int) -> Transfer:
        """Move `amount` from the platform's balance to a connected account's, at most once for the attempt."""
        made = self._v1.transfers.create(
            {
                "amount": amount,
                "currency": one.currency.lower(),
                "destination": account,
                "transfer_group": str(one.attempt),
                "metadata": self._metadata(one.attempt, one.reference),
            },
            {"idempotency_key": f"{one.attempt}:transfer"},
        )
        return _read(Transfer, made)

    @_judged()
    def pay_out_of(self, transfer: Transfer, attempt: UUID) -> Payout:
        """Pay a transfer's amount out of the connected account that got it, at most once for the attempt."""
        reference = transfer.metadata.get(REFERENCE, "")
        return self._pay_out(
            attempt,
            {
                "amount": transfer.amount,
                "currency": transfer.currency,
                "metadata": self._metadata(attempt, reference) | {TRANSFER: transfer.id},
            },
            transfer.destination,
        )

    @_judged()
    def pay_out_to(self, destination: str, one: Instruction, amount: int) -> Payout:
        """Pay `amount` out of the platform's own balance, at most once for the attempt."""
        return self._pay_out(
            one.attempt,
            {
                "amount": amount,
                "currency": one.currency.lower(),
                "destination": destination,
                "metadata": self._metadata(one.attempt, one.reference),
            },
            None,
        )

    @_judged()
    def reverse(self, transfer: Transfer, attempt: UUID, why: str, on: date) -> Transfer:
        """Take a transfer back whole. Stripe takes back no more than was sent, so that a key for each day is enough: a refusal
        (the account's balance was short) is kept under its key, and a later day may see it through."""
        self._v1.transfers.reversals.create(
            transfer.id,
            {"amount": transfer.amount, "metadata": {ATTEMPT: str(attempt), WHY: why}},
            {"idempotency_key": f"{attempt}:reversal:{on.isoformat()}"},
        )
        return transfer.now_reversed(why)

    @_judged()
    def transfer_of(self, attempt: UUID) -> Transfer | None:
        """The transfer of an attempt; None if there never was one."""
        listed = self._v1.transfers.list({"transfer_group": str(attempt), "limit": PAGE})
        found = (_read(Transfer, one) for one in listed.auto_paging_iter())
        return next((one for one in found if one.attempt == attempt), None)

    def transfers(self, since: datetime, until: datetime) -> Iterator[Transfer]:
        """Every transfer of this rail that was created in [since, until), newest first."""
        created: TransferListParamsCreated = {"gte": _seconds(since), "lt": _seconds(until)}
        with _judged():
            for one in self._v1.transfers.list({"created": created, "limit": PAGE}).auto_paging_iter():
                transfer = _read(Transfer, one)
                if transfer.metadata.get(RAIL) == self._rail:
                    yield transfer

    @_judged()
    def payout(self, payout_id: str) -> Payout:
        """A payout of the platform's own, as it stands."""
        return _read(Payout, self._v1.payouts.retrieve(payout_id))

    @_judged()
    def payout_of(self, transfer: Transfer, attempt: UUID) -> Payout | None:
        """The payout that goes on from a transfer; None if it is not there.

        The first of the attempt and the transfer's amount: what an account's holder writes into later ones of their own says
        nothing. In no case is more believed of it than where the transfer's money is.
        """
        found: Payout | None = None
        listed = self._v1.payouts.list(
            {"created": {"gte": transfer.created}, "limit": PAGE}, {"stripe_account": transfer.destination}
        )
        for one in listed.auto_paging_iter():
            payout = _read(Payout, one)
            if payout.attempt == attempt and (payout.amount, payout.currency) == (
                transfer.amount,
                transfer.currency,
            ):
                found = payout  # the newest come first: the last to be seen is the oldest
        return found

    def payouts(self, since: datetime, until: datetime | None = None) -> Iterator[Payout]:
        """Every payout of this rail from the platform's own balance that was created in [since, until), newest first."""
        created: PayoutListParamsCreated = {"gte": _seconds(since)}
        if until is not None:
            created["lt"] = _seconds(until)
        with _judged():
            for one in self._v1.payouts.list({"created": created, "limit": PAGE}).auto_paging_iter():
                payout = _read(Payout, one)
                if payout.metadata.get(RAIL) == self._rail:
                    yield payout

    @_judged()
    def account(self, account_id: str) -> Account:
        """A connected account as it stands."""
        return _read(Account, self._v1.accounts.retrieve(account_id))

    @_judged()
    def external_accounts(self, account_id: str) -> list[ExternalAccount]:
        """The bank accounts and cards that a connected account can be paid out to."""
        listed = self._v1.accounts.external_accounts.list(account_id, {"limit": PAGE})
        return [_read(ExternalAccount, one) for one in listed.auto_paging_iter()]

    @_judged()
    def fee(self, moved: Transfer | Payout) -> int | None:
        """What Stripe took from the platform's balance for a movement; None where it does not say, or in another currency."""
        if moved.balance_transaction is None:
            return None
        entry = self._v1.balance_transactions.retrieve(moved.balance_transaction)
        return entry.fee if entry.currency == moved.currency else None

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def _pay_out(self, attempt: UUID, params: PayoutCreateParams, account: str | None) -> Payout:
        if self._descriptor is not None:
            params["statement_descriptor"] = self._descriptor
        options: stripe.RequestOptions = {"idempotency_key": f"{attempt}:payout"}
        if account is not None:
            options["stripe_account"] = account
        return _read(Payout, self._v1.payouts.create(params, options))

    def _metadata(self, attempt: UUID, reference: str) -> dict[str, str]:
        return {ATTEMPT: str(attempt), RAIL: self._rail, REFERENCE: reference}


def _read(kind: type[_Object], answer: stripe.StripeObject) -> _Object:
    return kind.model_validate(answer.to_dict())


def _seconds(at: datetime) -> int:
    """Whole seconds, as Stripe's clock counts; never before `at`, so that spans side by side share nothing."""
    return -int(-at.timestamp() // 1)
