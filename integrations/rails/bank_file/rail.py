"""The rail of bank files. Sending is making the file of a batch, once; asking is reading what the bank has answered since.

Nothing here calls a network: a manager fetches the file and brings the bank's answers (`mizan payment-file`), which need two
systems and a person between them anyway.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from integrations.inbox.keys import InboxKeys
from integrations.rails.bank_file import answers, build, store
from integrations.rails.bank_file.answers import MEANINGS, RETURNED, Answer, Group, OnTransaction, Verdict
from integrations.rails.bank_file.options import BankFileOptions
from integrations.rails.bank_file.store import FileState, Payment, PaymentFile, Said
from integrations.rails.setting import Setting
from ledger.database import Tx
from ledger.errors import Conflict
from products.payouts.rails import (
    Callback,
    CallbackRefused,
    Checked,
    Instruction,
    RailPayee,
    Report,
    ReportState,
    Sent,
)

FORGETS_AFTER_SECONDS: Final = 120
"""A file that is being made is stored within the longest statement; what is not there after that never will be."""
CLOCKS_APART_MAX: Final = timedelta(hours=36)
"""How far a bank's clock may be ahead of ours, its day for a time included: what it says last stands, so a time far off would
stand for ever."""


class UnknownPaymentFile(Conflict):
    """A bank's answer to a message, or about a payment, that this rail never sent."""

    code = "payment_file_unknown"


class AnswerMismatch(Conflict):
    """A bank's answer that repeats other totals than the file had."""

    code = "payment_answer_mismatch"


@dataclass(frozen=True, slots=True)
class Taken:
    """What an answer has brought: what now stands of each payment that it speaks of.

    ``replayed``: the same file was taken before, and changed nothing. ``unread``: statuses that we know no meaning of.
    """

    id: UUID
    replayed: bool
    reports: tuple[Report, ...]
    unread: tuple[str, ...]


class BankFileRail:
    """One bank's rail. See `products.payouts.rails.Rail` for what each method promises."""

    def __init__(self, options: BankFileOptions, setting: Setting) -> None:
        self._options = options
        self._database = setting.database
        self._clock = setting.clock
        self._slug = setting.slug
        self._keys = InboxKeys(setting.database, setting.keyring, setting.clock)
        self.together_max: int = options.payments_max
        self.asks_after_seconds: float = options.asks_after_seconds
        self.forgets_after_seconds: float = FORGETS_AFTER_SECONDS

    def submit(self, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> list[Report]:
        """Put the payments into the batch's file, unless they are in one; one report for each, in order.

        `failed`: the bank can't be asked for it at all. `not_sent`: the batch's file is made, or full: another batch takes it.
        """
        if len(instructions) > self.together_max:
            raise ValueError(f"a file takes {self.together_max} payments at most")
        refused = {one.attempt: build.refusal_of(self._options, one) for one in instructions}
        sound = [one for one in instructions if refused[one.attempt] is None]
        key = self._keys.current()

        def stored(tx: Tx) -> dict[UUID, Payment]:
            store.lock_rail(tx, self._slug)
            known = store.payments(tx, self._slug, [one.attempt for one in sound])
            fresh = [one for one in sound if one.attempt not in known]
            if store.of_batch(tx, batch) is not None or not fresh:
                return known
            file = build.build(self._options, batch, fresh[: build.fitting(fresh)], asked_on)
            store.add(tx, self._clock, key, self._slug, batch, file)
            return known | store.payments(tx, self._slug, [one.attempt for one in file.lines])

        there = self._database.run(stored) if sound else {}
        return [self._sent(one, refused[one.attempt], there.get(one.attempt)) for one in instructions]

    def _sent(self, one: Instruction, refused: str | None, payment: Payment | None) -> Report:
        if refused is not None:
            return Report("failed", one.attempt, at=self._clock.now(), reason="refused", code=refused)
        if payment is None:
            return Report("not_sent", one.attempt, code="file_closed")
        return _accepted(payment)

    def ask(self, payments: Sequence[Sent]) -> list[Report]:
        """What the bank has said of payments; `accepted` while it has said nothing of one that is in a file."""
        with self._database.begin() as tx:
            standing = self._standing(tx, [one.attempt for one in payments])
        return [standing.get(one.attempt) or Report("not_found", one.attempt) for one in payments]

    def check(self, payee: RailPayee) -> Checked | None:
        """Whether a file can name the payee; whether the account is there, and whose it is, only the payment shows."""
        refused = build.refusal(self._options, payee)
        return Checked(reachable=refused is None, name="not_checked", code=refused)

    def read(self, callback: Callback) -> list[Report]:  # noqa: ARG002  of the port's signature
        """Banks call nobody back: whoever does is not the bank."""
        raise CallbackRefused

    def listed(self, since: datetime, until: datetime) -> Iterator[Report]:
        """Every payment of the files that were made from `since` until before `until`."""
        with self._database.begin() as tx:
            made = store.made_between(tx, self._slug, since, until)
            standing = self._standing(tx, [one.attempt for one in made])
        yield from (standing[one.attempt] for one in made)

    def close(self) -> None:
        """Nothing to give back: the database is the process's."""

    def take(self, tx: Tx, content: bytes) -> Taken:
        """Take a file that the bank answered with, in the caller's transaction.

        Raises `UnreadableAnswer`, `UnknownPaymentFile`, `AnswerMismatch`; of such a file nothing is kept.
        """
        key = self._keys.current()
        store.lock_rail(tx, self._slug)
        known = store.answered(tx, self._slug, hashlib.sha256(content).digest())
        if known is not None:
            return Taken(known, True, (), ())
        answer = answers.read(content, self._options.time_zone)
        if answer.said_at > self._clock.now() + CLOCKS_APART_MAX:
            raise answers.UnreadableAnswer("The file was made in the future (GrpHdr/CreDtTm).")
        lines = self._lines(tx, answer)
        answer_id = store.add_answer(
            tx, self._clock, key, self._slug, answer.kind, content, answer.said_at, lines
        )
        for file_id in sorted({payment.file_id for payment, _ in lines}):
            store.set_state(tx, self._clock, file_id, _state_of(tx, file_id))
        standing = self._standing(tx, [said.attempt for _, said in lines])
        unread = sorted({said.status for _, said in lines} - MEANINGS.keys() - {RETURNED})
        return Taken(answer_id, False, tuple(standing.values()), tuple(unread))

    def _lines(self, tx: Tx, answer: Answer) -> list[tuple[Payment, Said]]:
        """What the answer says of each payment: itself, or its part, or the whole message."""
        if answer.message is None:
            among = _by_end_to_end(self._named(tx, answer.transactions))
        else:
            file = store.of_message(tx, self._slug, answer.message.id)
            if file is None:
                raise UnknownPaymentFile("The file answers to a message that this rail never sent.")
            in_file = store.of_file(tx, file.id)
            _require_totals(answer, file, in_file)
            among = _by_end_to_end(in_file)
        said: dict[UUID, tuple[Payment, Said]] = {}

        def say(payment: Payment, verdict: Verdict, one: OnTransaction | None = None) -> None:
            said[payment.attempt] = (
                payment,
                Said(
                    payment.attempt,
                    verdict.status,
                    verdict.code,
                    one.amount if one else None,
                    one.currency if one else None,
                    answer.said_at,
                ),
            )

        groups = {part.id: part.verdict for part in answer.parts}
        whole = answer.message.verdict if answer.message else None
        for payment in among.values():
            verdict = groups.get(build.part_id(payment.message_id, payment.part)) or whole
            # PART says only that payments differ
            if verdict is not None and verdict.status != "PART":
                say(payment, verdict)
        named: set[UUID] = set()
        for one in answer.transactions:
            found = among.get(one.end_to_end)
            if found is None and answer.message is None:
                continue  # a return of somebody else's payment from the same account
            if found is None:
                raise UnknownPaymentFile("The file speaks of a payment that was not in the message.")
            if found.attempt in named:
                raise answers.UnreadableAnswer("The file speaks of one payment twice.")
            named.add(found.attempt)
            say(found, one.verdict, one)
        if answer.message is None and not said:
            raise UnknownPaymentFile("The file returns no payment that this rail has sent.")
        return [said[attempt] for attempt in sorted(said)]

    def _named(self, tx: Tx, transactions: Sequence[OnTransaction]) -> Collection[Payment]:
        attempts = [attempt for attempt in map(_attempt, transactions) if attempt is not None]
        return store.payments(tx, self._slug, attempts).values()

    def _standing(self, tx: Tx, attempts: Sequence[UUID]) -> dict[UUID, Report]:
        """What stands of each of these payments that is in a file of the rail, in the order asked."""
        known = store.payments(tx, self._slug, attempts)
        said = store.said_of(tx, known)
        return {
            attempt: _stands(known[attempt], said.get(attempt, ()), self._options.paid_by == "status")
            for attempt in attempts
            if attempt in known
        }


def _stands(payment: Payment, said: Sequence[Said], status_proves: bool) -> Report:
    """What stands after all that the bank has said, in its order: what is farther on is not taken back by what is not, and a
    refusal after the money was there is a return."""
    report = _accepted(payment)
    for one in said:
        meaning = MEANINGS.get(one.status)
        state: ReportState
        if one.status == RETURNED:
            state = "returned"
        elif meaning == "refused":
            state = "returned" if report.state in ("paid", "returned") else "failed"
        elif meaning == "paid":
            state = "paid" if status_proves else "in_transit"
        elif meaning in ("accepted", "in_transit"):
            state = meaning
        else:
            continue
        if _FARTHER[state] < _FARTHER[report.state]:
            continue
        back = state in ("failed", "returned")
        report = Report(
            state,
            payment.attempt,
            payment.attempt.hex,
            one.said_at,
            answers.reason_of(one.code) if back else None,
            one.code or one.status,
            one.amount if one.amount is not None else report.amount,
            one.currency or report.currency,
        )
    return report


_FARTHER: Final[Mapping[ReportState, int]] = {
    "accepted": 1,
    "in_transit": 2,
    "failed": 3,
    "paid": 3,  # the bank's later word counts
    "returned": 4,
}


def _accepted(payment: Payment) -> Report:
    return Report(
        "accepted",
        payment.attempt,
        payment.attempt.hex,
        payment.made_at,
        amount=payment.amount,
        currency=payment.currency,
    )


def _by_end_to_end(among: Collection[Payment]) -> dict[str, Payment]:
    return {one.attempt.hex: one for one in among}


def _attempt(one: OnTransaction) -> UUID | None:
    try:
        found = UUID(hex=one.end_to_end)
    except ValueError:
        return None
    return found if found.hex == one.end_to_end else None


def _require_totals(answer: Answer, file: PaymentFile, among: Sequence[Payment]) -> None:
    """The totals that the bank repeats are those of the file and of its parts."""
    parts: dict[str, list[Payment]] = {}
    for payment in among:
        parts.setdefault(build.part_id(file.message_id, payment.part), []).append(payment)
    if answer.message is not None:
        _require_total(answer.message, file.payments, file.control_sum)
    for part in answer.parts:
        payments = parts.get(part.id)
        if payments is None:
            raise UnknownPaymentFile("The file answers to a part that was not in the message.")
        total = sum((build.major(one.amount, one.currency) for one in payments), Decimal(0))
        _require_total(part, len(payments), total)


def _require_total(group: Group, payments: int, control_sum: Decimal) -> None:
    if group.payments not in (None, payments) or group.control_sum not in (None, control_sum):
        raise AnswerMismatch("The file repeats another number of payments, or another sum, than was sent.")


def _state_of(tx: Tx, file_id: UUID) -> FileState:
    """What a file has come to: whether the bank refused all, some or none of its payments."""
    refused = [
        any(MEANINGS.get(one.status) == "refused" for one in said) for _, said in store.histories(tx, file_id)
    ]
    return "rejected" if all(refused) else "part" if any(refused) else "accepted"
