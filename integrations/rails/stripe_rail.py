"""The Stripe rail, in its two ways.

`connect`: the payee is a connected account (``acct_…``). A transfer takes the money there, a payout takes it on to the payee's
bank. Each step has its own idempotency key, both name the attempt, so that a crash between them is gone on from by asking, and
a payout that fails is `failed` only once the transfer is reversed: before that, the money is not back.

`payout`: the payee is a bank account or card of the platform's own (``ba_…``, ``card_…``): one payout from its balance.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, timedelta
from threading import Event
from time import monotonic
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from integrations.rails import stripe_amounts
from integrations.rails.names import is_masked, is_same_name
from integrations.rails.setting import InvalidRailOptions, Setting
from integrations.rails.stripe import NotDone, StripeApi
from integrations.rails.stripe_amounts import AmountNotPayable
from integrations.rails.stripe_events import SECRETS_MAX, StripeEvent, read_event
from integrations.rails.stripe_objects import (
    Payout,
    Transfer,
    attempt_in,
    told_of_payout,
    told_of_transfer,
)
from ledger.ids import made_at
from products.payouts.rails import (
    Callback,
    Checked,
    Instruction,
    ListUnavailable,
    Rail,
    RailPayee,
    Report,
    Sent,
)

TOGETHER_MAX: Final = 50
SECONDS_MAX: Final = 4.0
"""After it no further payment of a call is begun."""
TAKEN_BACK_AGAIN: Final = timedelta(minutes=10)
"""How long after a reversal that did not succeed it is tried again."""
LATE_FAILURES: Final = timedelta(days=9)
"""Stripe may say that a payout failed up to five business days after it said paid: by then it is asked once more."""
KEYS_KEPT: Final = timedelta(hours=20)
"""Stripe keeps idempotency keys for at least 24 hours: an attempt older than this is looked for before it is sent again."""
CLOCKS_APART: Final = timedelta(hours=1)
SECRETS: Final = frozenset({"api_key", "webhook_secrets"})
"""`api_key`: ``sk_…`` or ``rk_…``. `webhook_secrets`: one to four ``whsec_…``, a space between: a platform has an endpoint for
its own events and one for its connected accounts', and each secret has a successor while it rotates."""
CHECKS_PAYEES: Final = True

_ACCOUNT: Final = re.compile(r"acct_[A-Za-z0-9]{1,64}", re.ASCII)
_EXTERNAL: Final = re.compile(r"(ba|card)_[A-Za-z0-9]{1,64}", re.ASCII)
_API_KEY: Final = re.compile(r"(?:sk|rk)_(test|live)_[A-Za-z0-9_]{8,256}", re.ASCII)
_WEBHOOK_SECRET: Final = re.compile(r"whsec_[\x21-\x7e]{8,128}", re.ASCII)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PAYOUT_EVENTS: Final = frozenset(
    f"payout.{what}" for what in ("created", "updated", "paid", "failed", "canceled")
)
_TRANSFER_EVENTS: Final = frozenset({"transfer.created", "transfer.updated", "transfer.reversed"})

_Item = TypeVar("_Item")


class Options(BaseModel):
    """How a Stripe account is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["connect", "payout"] = Field(
        default="connect",
        description="`connect`: payees are connected accounts. `payout`: they are bank accounts of the platform's own.",
    )
    statement_descriptor: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9 .&/-]{1,22}$", description="what the payee's bank statement shows"
    )
    api_base: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#/]+$",
        description="another address of the API; in production over HTTPS only",
    )
    at_once: int = Field(default=8, ge=1, le=32, description="requests that run at the same time")
    timeout_seconds: float = Field(
        default=10, ge=0.1, le=60, description="for each request; after it, what became of it is unknown"
    )


OPTIONS: Final = Options


def build(options: Mapping[str, object], secrets: Mapping[str, str], setting: Setting) -> Rail:
    """The adapter of a Stripe rail. Raises `InvalidRailOptions` for keys of the other mode and addresses that are unsafe."""
    made = Options.model_validate(dict(options))
    key = _API_KEY.fullmatch(secrets["api_key"])
    wanted = "live" if setting.environment == "production" else "test"
    if key is None or key[1] != wanted:
        raise InvalidRailOptions(f"api_key: a {setting.environment} rail has a {wanted} key of Stripe's")
    signing = secrets["webhook_secrets"].split()
    if not 1 <= len(signing) <= SECRETS_MAX or not all(map(_WEBHOOK_SECRET.fullmatch, signing)):
        raise InvalidRailOptions(f"webhook_secrets: one to {SECRETS_MAX} of whsec_…, a space between")
    if not _is_safe(made.api_base, setting.environment):
        raise InvalidRailOptions("api_base: HTTPS, or loopback in the sandbox")
    api = StripeApi(
        secrets["api_key"],
        setting.slug,
        answer_seconds_max=made.timeout_seconds,
        api_base=made.api_base,
        statement_descriptor=made.statement_descriptor,
    )
    way = ConnectRail if made.mode == "connect" else PayoutRail
    return way(api, signing, made.at_once, setting)


def _is_safe(api_base: str | None, environment: str) -> bool:
    if api_base is None or api_base.startswith("https:"):
        return True
    return environment == "sandbox" and urlsplit(api_base).hostname in _LOOPBACK


class _StripeRail(ABC):
    """What both ways share."""

    together_max: int = TOGETHER_MAX
    asks_after_seconds: float = 30.0
    forgets_after_seconds: float = 300.0

    def __init__(
        self, api: StripeApi, webhook_secrets: Sequence[str], at_once: int, setting: Setting
    ) -> None:
        self._api = api
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="stripe")
        self._webhook_secrets = webhook_secrets
        self._clock = setting.clock
        self._slug = setting.slug
        self._currency = setting.currency
        self._livemode = setting.environment == "production"

    def submit(self, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> list[Report]:
        """Ask for the payments, several at once; those that can't be begun in time do not leave: `not_sent`."""
        del batch, asked_on  # Stripe knows no batches, and pays out when it can
        return self._together(
            instructions,
            self._pay,
            lambda one, said: Report(said.state, one.attempt, reason=said.reason, code=said.code),
        )

    def ask(self, payments: Sequence[Sent]) -> list[Report]:
        """What became of payments; and what a crash left undone of them is done: a payout, a reversal."""
        return self._together(
            payments,
            self._asked,
            lambda one, said: Report("unknown", one.attempt, one.rail_reference, code=said.code),
        )

    def read(self, callback: Callback) -> list[Report]:
        """What an event is about, as Stripe tells it when asked: events come late, twice and in any order.

        Those of the other mode, of payments that are not ours and of kinds that we don't know say nothing.
        """
        event = read_event(callback, self._webhook_secrets, self._clock.now())
        attempt = attempt_in(event.about.get("metadata"), self._slug)
        if attempt is None or event.livemode != self._livemode:
            return []
        try:
            report = self._told(event, attempt)
        except NotDone as silence:
            return [Report("unknown", attempt, code=silence.code, ask_again_at=self._clock.now())]
        if report is None:
            return []
        return [replace(report, at=event.at) if event.kind == f"payout.{report.state}" else report]

    def close(self) -> None:
        """Give back threads and connections."""
        self._threads.shutdown()
        self._api.close()

    @abstractmethod
    def _pay(self, one: Instruction) -> Report:
        """Ask for one payment. Raises `NotDone`."""

    @abstractmethod
    def _asked(self, payment: Sent) -> Report:
        """What became of one. Raises `NotDone`."""

    @abstractmethod
    def _told(self, event: StripeEvent, attempt: UUID) -> Report | None:
        """What an event of Stripe's is about now; None if it is about nothing of ours. Raises `NotDone`."""

    def _together(
        self,
        items: Sequence[_Item],
        work: Callable[[_Item], Report],
        otherwise: Callable[[_Item, NotDone], Report],
    ) -> list[Report]:
        """A report for each, in order, several at once. Nothing is begun once time is up, or Stripe can't be heard."""
        ends_at = monotonic() + SECONDS_MAX
        hopeless = Event()

        def report(item: _Item) -> Report:
            if hopeless.is_set() or monotonic() > ends_at:
                return otherwise(item, NotDone("not_sent", None, "not_begun"))
            try:
                return work(item)
            except NotDone as refusal:
                if refusal.is_general:
                    hopeless.set()
                return otherwise(item, refusal)

        return list(self._threads.map(report, items))

    def _before(self, one: Instruction, look: Callable[[], _Item | None]) -> _Item | None:
        """What an earlier sending made, where Stripe may have forgotten its keys. Raises `NotDone`, never as `failed`."""
        at = made_at(one.attempt)
        if at is not None and self._clock.now() - at <= KEYS_KEPT:
            return None
        try:
            return look()
        except NotDone as refusal:
            # that we may not look says nothing of what is there
            state = "unknown" if refusal.state == "failed" else refusal.state
            raise NotDone(state, None, refusal.code) from refusal

    def _final(self, report: Report, moved: Transfer | Payout) -> Report:
        """What is paid, with what Stripe took for it, and when to ask once more: its event, if it fails late, may be lost."""
        if report.state != "paid":
            return report
        late = moved.created_at + LATE_FAILURES
        if late > self._clock.now():
            report = replace(report, ask_again_at=late)
        try:
            fee = self._api.fee(moved)
        except NotDone:
            return report  # as paid as with it
        if not fee or report.currency is None:
            return report
        return replace(report, fee=stripe_amounts.from_stripe(fee, report.currency))


class ConnectRail(_StripeRail):
    """To connected accounts: transfer, then payout."""

    def check(self, payee: RailPayee) -> Checked | None:
        """Whether the account takes our transfers and pays them out in the rail's currency, and whose Stripe says it is."""
        account_id = payee.destination.get("token", "")
        if _ACCOUNT.fullmatch(account_id) is None:
            return Checked(False, "not_checked", "no_account")
        try:
            account = self._api.account(account_id)
            ways = [one for one in self._api.external_accounts(account_id) if one.takes(self._currency)]
        except NotDone as refusal:
            return Checked(False, "not_checked", refusal.code) if refusal.state == "failed" else None
        code = account.unreachable or (None if ways else "currency_not_supported")
        names = [account.holder, *(one.account_holder_name for one in ways)]
        known = [name for name in names if name and not is_masked(name)]
        if not known:
            return Checked(code is None, "not_checked", code)
        same = any(is_same_name(name, payee.name) for name in known)
        return Checked(code is None, "matches" if same else "differs", code)

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """Every transfer of this rail that was created in [since, until), with what became of its payout.

        Only looks: what is left to do for a payment is done when it is asked about. Raises `ListUnavailable`.
        """
        try:
            for transfer in self._api.transfers(since, until):
                if transfer.attempt is not None:
                    yield self._looked_at(transfer, transfer.attempt)
        except NotDone as silence:
            raise ListUnavailable(silence.code) from silence

    def _pay(self, one: Instruction) -> Report:
        account = one.payee.destination.get("token", "")
        if _ACCOUNT.fullmatch(account) is None:
            return Report("failed", one.attempt, reason="payee_unknown", code="no_account")
        try:
            amount = stripe_amounts.to_stripe(one.amount, one.currency)
        except AmountNotPayable:
            return _refused_here(one)
        known = self._before(one, lambda: self._api.transfer_of(one.attempt))
        if known is not None:
            return self._gone_on(known, one.attempt)
        return self._paid_out(self._api.transfer_to(account, one, amount), one.attempt)

    def _asked(self, payment: Sent) -> Report:
        transfer = self._api.transfer_of(payment.attempt)
        if transfer is None:
            return Report("not_found", payment.attempt)
        return self._gone_on(transfer, payment.attempt)

    def _told(self, event: StripeEvent, attempt: UUID) -> Report | None:
        of_transfer = event.kind in _TRANSFER_EVENTS and event.account is None
        if not of_transfer and (event.kind not in _PAYOUT_EVENTS or event.account is None):
            return None
        transfer = self._api.transfer_of(attempt)
        # Whoever owns a connected account writes what they like into its payouts: only our own transfer says what is ours.
        if transfer is None or (not of_transfer and transfer.destination != event.account):
            return None
        if event.kind == "transfer.created":
            return told_of_transfer(transfer, None, attempt)  # whoever sent it is about to make its payout
        return self._gone_on(transfer, attempt)

    def _looked_at(self, transfer: Transfer, attempt: UUID) -> Report:
        try:
            payout = self._api.payout_of(transfer, attempt)
        except NotDone as refusal:
            if refusal.state != "failed":
                raise
            return _unclear(transfer, attempt, refusal)  # one account that left us hides no other's payments
        return told_of_transfer(transfer, payout, attempt)

    def _gone_on(self, transfer: Transfer, attempt: UUID) -> Report:
        """What became of a transfer, after doing what is left to do: its payout, or its reversal."""
        try:
            payout = self._api.payout_of(transfer, attempt)
        except NotDone as silence:
            return _unclear(transfer, attempt, silence)
        if payout is None and not transfer.amount_reversed:
            return self._paid_out(transfer, attempt)
        return self._settled(transfer, payout, attempt)

    def _paid_out(self, transfer: Transfer, attempt: UUID) -> Report:
        """The second step. Where Stripe refuses it, the first is taken back."""
        try:
            payout = self._api.pay_out_of(transfer, attempt)
        except NotDone as refusal:
            if refusal.state != "failed":
                return _unclear(transfer, attempt, refusal)
            return self._taken_back(transfer, None, attempt, refusal.code)
        return self._settled(transfer, payout, attempt)

    def _settled(self, transfer: Transfer, payout: Payout | None, attempt: UUID) -> Report:
        if payout is not None and payout.came_back and not transfer.amount_reversed:
            return self._taken_back(transfer, payout, attempt, payout.why)
        return self._final(told_of_transfer(transfer, payout, attempt), transfer)

    def _taken_back(self, transfer: Transfer, payout: Payout | None, attempt: UUID, why: str) -> Report:
        """The money back from the connected account; until that is certain, nobody knows where it will end."""
        try:
            reversed_ = self._api.reverse(transfer, attempt, why, self._clock.now().date())
        except NotDone as silence:
            # Asked about again even where it was paid before: until it is back, it is nobody's.
            later = self._clock.now() + TAKEN_BACK_AGAIN
            return replace(_unclear(transfer, attempt, silence), ask_again_at=later)
        return told_of_transfer(reversed_, payout, attempt)


class PayoutRail(_StripeRail):
    """To bank accounts and cards of the platform's own."""

    def check(self, payee: RailPayee) -> Checked | None:
        """That it could be a bank account: Stripe tells a platform nothing of whose its own ones are."""
        if _EXTERNAL.fullmatch(payee.destination.get("token", "")) is None:
            return Checked(False, "not_checked", "no_account")
        return Checked(True, "not_checked")

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """Every payout of this rail that was created in [since, until). Raises `ListUnavailable`."""
        try:
            for payout in self._api.payouts(since, until):
                if payout.attempt is not None:
                    yield told_of_payout(payout, payout.attempt)
        except NotDone as silence:
            raise ListUnavailable(silence.code) from silence

    def _pay(self, one: Instruction) -> Report:
        destination = one.payee.destination.get("token", "")
        if _EXTERNAL.fullmatch(destination) is None:
            return Report("failed", one.attempt, reason="payee_unknown", code="no_account")
        try:
            amount = stripe_amounts.to_stripe(one.amount, one.currency)
        except AmountNotPayable:
            return _refused_here(one)
        known = self._before(one, lambda: self._found(one.attempt, self._clock.now()))
        payout = known or self._api.pay_out_to(destination, one, amount)
        return self._final(told_of_payout(payout, one.attempt), payout)

    def _asked(self, payment: Sent) -> Report:
        if payment.rail_reference is not None:
            payout: Payout | None = self._api.payout(payment.rail_reference)
        else:
            payout = self._found(payment.attempt, payment.sent_at)
        if payout is None:
            return Report("not_found", payment.attempt)
        return self._final(told_of_payout(payout, payment.attempt), payout)

    def _told(self, event: StripeEvent, attempt: UUID) -> Report | None:
        payout_id = event.about.get("id")
        if event.kind not in _PAYOUT_EVENTS or event.account is not None or not isinstance(payout_id, str):
            return None
        payout = self._api.payout(payout_id)
        return self._final(told_of_payout(payout, attempt), payout) if payout.attempt == attempt else None

    def _found(self, attempt: UUID, sent_at: datetime) -> Payout | None:
        since = min(made_at(attempt) or sent_at, sent_at) - CLOCKS_APART
        return next((one for one in self._api.payouts(since) if one.attempt == attempt), None)


def _unclear(transfer: Transfer, attempt: UUID, silence: NotDone) -> Report:
    """A transfer that is there, and what followed is not known; unless it came back, which says enough."""
    told = told_of_transfer(transfer, None, attempt)
    return told if transfer.is_reversed else replace(told, state="unknown", at=None, code=silence.code)


def _refused_here(one: Instruction) -> Report:
    return Report("failed", one.attempt, reason="refused", code="amount_not_payable")
