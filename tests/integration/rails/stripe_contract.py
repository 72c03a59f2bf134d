"""Stripe on loopback, as its documentation says it behaves: what `localstripe` lacks of it, strict, with faults on demand.

Transfers and their reversals, payouts of the platform and of connected accounts, accounts and their external accounts, balance
transactions, lists in pages, idempotency keys (kept a day, replayed, refused for another body, a 500 replayed too), the pinned
version, and signed events. Money is kept: a balance that is short refuses. Time passes by the clock that the adapter has too.
"""

import hashlib
import hmac
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ledger.clock import FixedClock
from tests.integration.rails.contract import Fate, Fault

API_VERSION = "2026-10-28.endive"
API_KEY = "sk_test_contractserver"
PLATFORM_SECRET = "whsec_the platform's own endpoint".replace(" ", "-")
CONNECT_SECRET = "whsec_the connected accounts' endpoint".replace(" ", "-")
KEYS_KEPT = timedelta(hours=24)


class Refusal(Exception):
    """An error of Stripe's."""

    def __init__(self, status: int, kind: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(code or kind)
        self.status = status
        self.error = {"type": kind, "code": code, "param": param, "message": f"Refused: {code or kind}"}


@dataclass
class Request:
    """What the server was asked."""

    method: str
    path: str
    form: dict[str, Any]
    headers: dict[str, str]

    @property
    def account(self) -> str | None:
        return self.headers.get("stripe-account")


@dataclass
class Planned:
    """What is to go wrong with the requests to come whose method and path match."""

    matches: re.Pattern[str]
    fault: Fault | None = None
    refusal: Refusal | None = None
    answer: bytes | None = None
    times: int | None = None


@dataclass
class FakeStripe:
    """The server's state. `None` stands for the platform among accounts."""

    clock: FixedClock
    url: str = ""
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    external: dict[str | None, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    fates: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    balances: dict[tuple[str | None, str], int] = field(default_factory=lambda: defaultdict(int))
    transfers: list[dict[str, Any]] = field(default_factory=list)
    payouts: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[tuple[str | None, str], tuple[str, float, int, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    fee: int = 0
    lock: Any = field(default_factory=threading.RLock)
    made: int = 0

    # What a test brings about

    def account(
        self, fate: Fate = "paid", code: str = "account_closed", currency: str = "eur", **about: Any
    ) -> str:
        """A connected account whose payouts meet a fate."""
        account_id = self._id("acct")
        self.accounts[account_id] = {
            "id": account_id,
            "object": "account",
            "payouts_enabled": True,
            "capabilities": {"transfers": "active"},
            "settings": {"payouts": {"schedule": {"interval": "manual"}}},
            "individual": {"first_name": "Aline", "last_name": "Uwase"},
        } | about
        self.external[account_id].append(
            {"id": self._id("ba"), "object": "bank_account", "currency": currency, "status": "new"}
        )
        self.fates[account_id] = (fate, code)
        return account_id

    def bank_account(self, fate: Fate = "paid", code: str = "account_closed", currency: str = "eur") -> str:
        """A bank account of the platform's own whose payouts meet a fate."""
        made = self._id("ba")
        self.external[None].append(
            {"id": made, "object": "bank_account", "currency": currency, "status": "new"}
        )
        self.fates[made] = (fate, code)
        return made

    def settle(self) -> None:
        """Banks answer: what is pending is paid, or fails."""
        with self.lock:
            for account, payout in self.payouts:
                if payout["status"] == "pending":
                    fate, code = self._fate(account, payout)
                    self._changed(account, payout, "in_transit", "updated")
                    if fate == "failed":
                        self._fail(account, payout, code)
                    else:
                        self._changed(account, payout, "paid", "paid")

    def come_back(self) -> None:
        """Three business days later: what was paid and is fated to come back fails."""
        self.clock.advance(timedelta(days=3))
        with self.lock:
            for account, payout in self.payouts:
                fate, code = self._fate(account, payout)
                if payout["status"] == "paid" and fate == "comes_back":
                    self._fail(account, payout, code)

    def signed(
        self, event: dict[str, Any], *, secret: str | None = None, shift: int = 0
    ) -> tuple[str, bytes]:
        """The header and the body of an event's delivery, by the endpoint that it belongs to."""
        body = json.dumps(event, indent=2).encode()
        at = int(self.clock.now().timestamp()) + shift
        key = secret or (CONNECT_SECRET if "account" in event else PLATFORM_SECRET)
        mac = hmac.new(key.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
        return f"t={at},v1={mac},v0=not-a-scheme-of-ours", body

    def event(self, kind: str, about: dict[str, Any], account: str | None = None) -> dict[str, Any]:
        """An event, not yet among those that happened."""
        made = {
            "id": self._id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "type": kind,
            "created": self._now(),
            "livemode": False,
            "data": {"object": json.loads(json.dumps(about))},
        }
        return made | ({"account": account} if account else {})

    @contextmanager
    def plan(
        self,
        matches: str = ".*",
        *,
        fault: Fault | None = None,
        refusal: Refusal | None = None,
        answer: bytes | None = None,
        times: int | None = None,
    ) -> Iterator[None]:
        """Something goes wrong with requests like ``POST /v1/payouts`` until the block ends."""
        planned = Planned(re.compile(matches), fault, refusal, answer, times)
        self.planned.insert(0, planned)
        try:
            yield
        finally:
            self.planned.remove(planned)

    # What Stripe does

    def answer(self, request: Request) -> tuple[int, bytes, bool]:
        """The status and the body of an answer, and whether it is a replayed one."""
        with self.lock:
            self.requests.append(request)
            if request.headers.get("authorization") != f"Bearer {API_KEY}":
                return *error(Refusal(401, "invalid_request_error")), False
            if request.headers.get("stripe-version") != API_VERSION:
                return *error(Refusal(400, "invalid_request_error")), False
            key = request.headers.get("idempotency-key")
            if request.method == "GET":
                return *self._tried(request), False
            if not key:
                raise AssertionError("whatever moves money has a key")
            scope, digest = (request.account, key), json.dumps([request.path, request.form], sort_keys=True)
            kept = self.keys.get(scope)
            if kept and self.clock.now().timestamp() - kept[1] < KEYS_KEPT.total_seconds():
                if kept[0] != digest:
                    return *error(Refusal(400, "idempotency_error")), False
                return kept[2], kept[3], True
            status, body = self._tried(request)
            self.keys[scope] = (digest, self.clock.now().timestamp(), status, body)
            return status, body, False

    def failed_after_all(self, request: Request) -> tuple[int, bytes]:
        """What was done is answered with a 500, which the key keeps."""
        status, body = error(Refusal(500, "api_error"))
        scope = (request.account, request.headers.get("idempotency-key", ""))
        with self.lock:
            if scope in self.keys:
                digest, at, _, _ = self.keys[scope]
                self.keys[scope] = (digest, at, status, body)
        return status, body

    def _tried(self, request: Request) -> tuple[int, bytes]:
        try:
            return 200, json.dumps(self._done(request), indent=2).encode()
        except Refusal as refusal:
            return error(refusal)

    def _done(self, request: Request) -> dict[str, Any]:
        account, form = request.account, request.form
        if account is not None and account not in self.accounts:
            raise Refusal(403, "invalid_request_error", "account_invalid")
        match [request.method, *request.path.removeprefix("/v1/").split("/")]:
            case ["POST", "transfers"]:
                return self._transfer(form)
            case ["GET", "transfers"]:
                wanted = form.pop("transfer_group", None)
                return _page(
                    request.path,
                    [one for one in self.transfers if wanted in (None, one["transfer_group"])],
                    form,
                )
            case ["POST", "transfers", transfer_id, "reversals"]:
                return self._reverse(_by_id(self.transfers, transfer_id), form)
            case ["POST", "payouts"]:
                return self._pay_out(account, form)
            case ["GET", "payouts"]:
                return _page(request.path, [one for whose, one in self.payouts if whose == account], form)
            case ["GET", "payouts", payout_id]:
                return _by_id([one for whose, one in self.payouts if whose == account], payout_id)
            case ["GET", "accounts", account_id]:
                return self._known_account(account_id)
            case ["GET", "accounts", account_id, "external_accounts"]:
                self._known_account(account_id)
                return _page(request.path, [one | {"created": 0} for one in self.external[account_id]], form)
            case ["GET", "balance_transactions", entry_id]:
                return _by_id(list(self.entries.values()), entry_id)
        raise Refusal(404, "invalid_request_error", "resource_missing")

    def _transfer(self, form: dict[str, Any]) -> dict[str, Any]:
        _only(form, "amount", "currency", "destination", "transfer_group", "metadata")
        amount, currency = _amount(form)
        account = self.accounts.get(form["destination"])
        if account is None:
            raise Refusal(400, "invalid_request_error", "resource_missing", "destination")
        if account["capabilities"].get("transfers") != "active":
            raise Refusal(400, "invalid_request_error", "insufficient_capabilities_for_transfer")
        self._take(None, currency, amount)
        self.balances[account["id"], currency] += amount
        made = {
            "id": self._id("tr"),
            "object": "transfer",
            "amount": amount,
            "amount_reversed": 0,
            "reversed": False,
            "reversals": {"object": "list", "data": []},
            "currency": currency,
            "created": self._now(),
            "destination": account["id"],
            "transfer_group": form.get("transfer_group"),
            "metadata": form.get("metadata", {}),
            "balance_transaction": self._entry(currency, -amount),
            "livemode": False,
        }
        self.transfers.append(made)
        self.events.append(self.event("transfer.created", made))
        return made

    def _reverse(self, transfer: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
        _only(form, "amount", "metadata")
        amount = int(form["amount"])
        if amount > transfer["amount"] - transfer["amount_reversed"]:
            raise Refusal(400, "invalid_request_error", None, "amount")
        self._take(transfer["destination"], transfer["currency"], amount)
        self.balances[None, transfer["currency"]] += amount
        made = {
            "id": self._id("trr"),
            "object": "transfer_reversal",
            "amount": amount,
            "transfer": transfer["id"],
            "metadata": form.get("metadata", {}),
        }
        transfer["reversals"]["data"].insert(0, made)
        transfer["amount_reversed"] += amount
        transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
        self.events.append(self.event("transfer.reversed", transfer))
        return made

    def _pay_out(self, account: str | None, form: dict[str, Any]) -> dict[str, Any]:
        _only(form, "amount", "currency", "destination", "metadata", "statement_descriptor")
        amount, currency = _amount(form, whole=("huf", "twd"))
        if account is not None and not self.accounts[account]["payouts_enabled"]:
            raise Refusal(400, "invalid_request_error", "payouts_not_allowed")
        ways = [one for one in self.external[account] if one["currency"] == currency]
        way = next((one for one in ways if form.get("destination") in (None, one["id"])), None)
        if way is None:
            raise Refusal(400, "invalid_request_error", None, "currency")
        self._take(account, currency, amount)
        made = {
            "id": self._id("po"),
            "object": "payout",
            "amount": amount,
            "currency": currency,
            "created": self._now(),
            "arrival_date": self._now() + 2 * 86_400,
            "destination": way["id"],
            "metadata": form.get("metadata", {}),
            "status": "pending",
            "failure_code": None,
            "reversed_by": None,
            "balance_transaction": self._entry(currency, -amount),
            "livemode": False,
        }
        self.payouts.append((account, made))
        self.events.append(self.event("payout.created", made, account))
        return made

    def _fail(self, account: str | None, payout: dict[str, Any], code: str) -> None:
        payout["failure_code"] = code
        self.balances[account, payout["currency"]] += payout["amount"]
        self._changed(account, payout, "failed", "failed")

    def _changed(self, account: str | None, payout: dict[str, Any], status: str, what: str) -> None:
        payout["status"] = status
        self.events.append(self.event(f"payout.{what}", payout, account))

    def _fate(self, account: str | None, payout: dict[str, Any]) -> tuple[Fate, str]:
        return self.fates[account or payout["destination"]]

    def _known_account(self, account_id: str) -> dict[str, Any]:
        if account_id not in self.accounts:
            raise Refusal(403, "invalid_request_error", "account_invalid")
        return self.accounts[account_id]

    def _take(self, account: str | None, currency: str, amount: int) -> None:
        if account is None and (None, currency) not in self.balances:
            self.balances[None, currency] = 10**12
        if self.balances[account, currency] < amount:
            raise Refusal(400, "invalid_request_error", "balance_insufficient")
        self.balances[account, currency] -= amount

    def _entry(self, currency: str, amount: int) -> str:
        made = self._id("txn")
        self.entries[made] = {
            "id": made,
            "object": "balance_transaction",
            "amount": amount,
            "currency": currency,
            "fee": self.fee,
        }
        return made

    def _now(self) -> int:
        return int(self.clock.now().timestamp())

    def _id(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}_{self.made:014}"


def error(refusal: Refusal) -> tuple[int, bytes]:
    return refusal.status, json.dumps({"error": refusal.error}).encode()


def _by_id(known: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    found = next((one for one in known if one["id"] == wanted), None)
    if found is None:
        raise Refusal(404, "invalid_request_error", "resource_missing", "id")
    return found


def _only(form: dict[str, Any], *names: str) -> None:
    if unknown := set(form) - set(names):
        raise Refusal(400, "invalid_request_error", "parameter_unknown", min(unknown))


def _amount(form: dict[str, Any], whole: tuple[str, ...] = ()) -> tuple[int, str]:
    amount, currency = int(form["amount"]), form["currency"]
    step = 10 if currency in ("bhd", "jod", "kwd", "omr", "tnd") else 1
    step = 100 if currency in ("isk", "ugx", *whole) else step
    if amount <= 0 or amount % step or currency != currency.lower():
        raise Refusal(400, "invalid_request_error", "parameter_invalid_integer", "amount")
    return amount, currency


def _page(path: str, known: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    _only(form, "created", "limit", "starting_after", "object")
    spans = {name: int(value) for name, value in form.get("created", {}).items()}
    found = [one for one in reversed(known) if spans.get("gte", 0) <= one["created"] < spans.get("lt", 2**40)]
    if "starting_after" in form:
        ids = [one["id"] for one in found]
        found = found[ids.index(form["starting_after"]) + 1 :]
    limit = int(form.get("limit", 10))
    if not 1 <= limit <= 100:
        raise Refusal(400, "invalid_request_error", "parameter_invalid_integer", "limit")
    return {"object": "list", "url": path, "has_more": len(found) > limit, "data": found[:limit]}
