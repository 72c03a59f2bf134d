"""What the simulated mobile money provider remembers: payments, durable in a file, and the rules by which it misbehaves."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import NAMESPACE_URL, uuid5

FAULTS: Mapping[str, frozenset[str]] = {
    "before": frozenset(
        {"time_out", "reset", "error_500", "error_503", "refuse", "rate_limited", "unauthorised", "slow"}
    ),
    "after": frozenset(
        {"time_out", "reset", "error_500", "error_503", "broken_answer", "wrong_hash", "slow", "synchronous"}
    ),
    "ask": frozenset({"time_out", "reset", "error_500", "error_503", "rate_limited", "slow", "wrong_hash"}),
    "outcome": frozenset({"fails", "fails_later", "reverses", "never"}),
    "callback": frozenset({"repeated", "before_answer", "out_of_order", "none", "late"}),
}


@dataclass(frozen=True)
class Rule:
    """One way to misbehave. `rate` of the tries that it fits, drawn by the seed from the payment's id and the number of the try.

    `when`: ``before`` accepting, ``after`` it, when asked (``ask``), in what becomes of it (``outcome``), in telling (``callback``).
    `first`: only the first so many tries of a payment. `seconds`: how long, or how late. `times`: callbacks in all.
    """

    when: str
    fault: str
    rate: float = 1.0
    msisdn: str | None = None
    amount: str | None = None
    correlation_id: str | None = None
    first: int | None = None
    seconds: float = 0.2
    times: int = 3
    status: int = 400
    category: str = "businessRule"
    code: str = "genericError"

    def __post_init__(self) -> None:
        if self.fault not in FAULTS.get(self.when, ()):
            raise ValueError(f"there is no fault {self.when} {self.fault}: {dict(FAULTS)}")


@dataclass
class Payment:
    """A disbursement as the provider has it. `state`: pending, completed, failed (never made), reversed, failed_late."""

    correlation_id: str
    server_correlation_id: str
    reference: str
    amount: str
    currency: str
    msisdn: str
    own_reference: str | None
    description: str | None
    credit_party: list[dict[str, str]]
    debit_party: list[dict[str, str]]
    callback_url: str | None
    created_at: str
    changed_at: str
    state: str = "pending"
    code: str | None = None
    sendings: int = 1
    polls: int = 0
    callbacks: int = 0
    callback_statuses: list[int] = field(default_factory=list)

    def transaction(self) -> dict[str, Any]:
        """The transaction object."""
        fee = {"feeType": "payout", "feeAmount": "1", "feeCurrency": self.currency}
        return {
            "transactionReference": self.reference,
            "requestingOrganisationTransactionReference": self.own_reference,
            "transactionStatus": "failed" if self.state == "failed_late" else self.state,
            "type": "disbursement",
            "amount": self.amount,
            "currency": self.currency,
            "creditParty": self.credit_party,
            "debitParty": self.debit_party,
            "creationDate": self.created_at,
            "modificationDate": self.changed_at,
            # what was never made cost nothing
            **({} if self.state == "failed" else {"fees": [fee]}),
        }

    def request_state(self, notification: str, poll_limit: int) -> dict[str, Any]:
        """The request state object."""
        state = {"pending": "pending", "failed": "failed"}.get(self.state, "completed")
        return {
            "serverCorrelationId": self.server_correlation_id,
            "status": state,
            "notificationMethod": notification,
            "pollLimit": poll_limit,
            **({"objectReference": self.reference} if state == "completed" else {}),
            **(
                {"errorReference": error("businessRule", self.code or "genericError")}
                if state == "failed"
                else {}
            ),
        }


class Books:
    """All payments, and the rules. Every change is a line in `path`, from which the next process goes on. Thread-safe."""

    def __init__(self, seed: int, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.rules: tuple[Rule, ...] = ()
        self.payments: dict[str, Payment] = {}
        self.by_server_id: dict[str, Payment] = {}
        self.by_reference: dict[str, Payment] = {}
        self.accounts: dict[str, dict[str, Any]] = {}
        self._seed = seed
        self._file: TextIO | None = None
        if path is not None:
            self._load(path)
            self._file = path.open("a", buffering=1, encoding="utf-8")

    def accept(
        self, correlation_id: str, body: Mapping[str, Any], callback_url: str | None
    ) -> Payment | None:
        """The new payment; None for an id that is there already, which counts a sending."""
        with self.lock:
            known = self.payments.get(correlation_id)
            if known is not None:
                known.sendings += 1
                self._write(known)
                return None
            number = len(self.payments) + 1
            now = instant()
            payment = Payment(
                correlation_id=correlation_id,
                server_correlation_id=str(uuid5(NAMESPACE_URL, f"{self._seed}/{correlation_id}")),
                reference=f"MP{self._seed:04d}.{number:07d}",
                amount=body["amount"],
                currency=body["currency"],
                msisdn=next(one["value"] for one in body["creditParty"] if one["key"] == "msisdn"),
                own_reference=body.get("requestingOrganisationTransactionReference"),
                description=body.get("descriptionText"),
                credit_party=body["creditParty"],
                debit_party=body["debitParty"],
                callback_url=callback_url,
                created_at=now,
                changed_at=now,
            )
            self._keep(payment)
            self._write(payment)
            return payment

    def change(self, payment: Payment, expected: str, state: str, code: str | None = None) -> bool:
        """Move a payment on, if it still stands where the caller saw it."""
        with self.lock:
            if payment.state != expected:
                return False
            payment.state, payment.code, payment.changed_at = state, code, instant()
            self._write(payment)
            return True

    def told(self, payment: Payment, status: int) -> None:
        """A callback was sent; 0: nobody answered."""
        with self.lock:
            payment.callbacks += 1
            payment.callback_statuses.append(status)
            self._write(payment)

    def chosen(self, when: str, correlation_id: str, attempt: int, body: Mapping[str, Any]) -> Rule | None:
        """The first rule that fits this try."""
        msisdn = next(
            (one.get("value") for one in body.get("creditParty", []) if one.get("key") == "msisdn"), None
        )
        for position, rule in enumerate(self.rules):
            fits = (
                rule.when == when
                and rule.msisdn in (None, msisdn)
                and rule.amount in (None, body.get("amount"))
                and rule.correlation_id in (None, correlation_id)
                and (rule.first is None or attempt <= rule.first)
            )
            if fits and self._draw(f"{position}/{when}/{correlation_id}/{attempt}") < rule.rate:
                return rule
        return None

    def chosen_for(self, when: str, payment: Payment, attempt: int = 1) -> Rule | None:
        """The first rule that fits a payment that is there."""
        about = {"amount": payment.amount, "creditParty": payment.credit_party}
        return self.chosen(when, payment.correlation_id, attempt, about)

    def page(
        self, since: str | None, until: str | None, offset: int, limit: int
    ) -> tuple[list[Payment], int]:
        """Transactions by creation, newest first, and how many there are in all; what was never made is none."""
        with self.lock:
            found = [
                one
                for one in reversed(self.payments.values())
                if one.state != "failed"
                and (since is None or moment(one.created_at) >= moment(since))
                and (until is None or moment(one.created_at) <= moment(until))
            ]
        return found[offset : offset + limit], len(found)

    def listing(self) -> list[dict[str, Any]]:
        """Every payment as it stands, oldest first."""
        with self.lock:
            return [asdict(one) for one in self.payments.values()]

    def pending(self) -> list[Payment]:
        """Payments whose outcome is still to come."""
        with self.lock:
            return [one for one in self.payments.values() if one.state == "pending"]

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _draw(self, what: str) -> float:
        digest = hashlib.blake2b(f"{self._seed}/{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def _keep(self, payment: Payment) -> None:
        self.payments[payment.correlation_id] = payment
        self.by_server_id[payment.server_correlation_id] = payment
        self.by_reference[payment.reference] = payment

    def _write(self, payment: Payment) -> None:
        if self._file is not None:
            self._file.write(json.dumps(asdict(payment), separators=(",", ":")) + "\n")

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        names = {one.name for one in fields(Payment)}
        for line in _whole_lines(path):
            self._keep(Payment(**{name: value for name, value in json.loads(line).items() if name in names}))


def error(category: str, code: str) -> dict[str, str]:
    """The errors object."""
    return {
        "errorCategory": category,
        "errorCode": code,
        "errorDescription": code,
        "errorDateTime": instant(),
    }


def instant() -> str:
    """Now, RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def moment(written: str) -> datetime:
    """The instant of an RFC 3339 text."""
    return datetime.fromisoformat(written)


def _whole_lines(path: Path) -> Iterable[str]:
    """The lines that end; what a crash cut off never happened."""
    return (
        line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    )
