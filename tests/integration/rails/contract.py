"""The contract that every rail keeps, adapters of the world's and the sandbox's simulator alike.

An adapter's test module makes a `Bench` (its rail, and the world behind it: a server on loopback, a bank, a table) and takes
the checks over by inheritance::

    class TestMobileMoneyKeepsTheContract(RailContract):
        @pytest.fixture()
        def bench(self) -> Iterator[Bench]: ...

Each check has a fresh `bench` (or one that is shared: checks make their own payments, and look at those only). The world acts
on demand: `payment(fate)` makes an instruction whose fate is written in its payee or amount, `settle()` lets its time come,
`come_back()` turns what was paid and is fated to come back, `during(fault)` breaks the line. What a world can't do it leaves out
of `faults`, and says False to `calls_back` or `tells_not_found`: those checks then show that nothing else is claimed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal, Protocol
from uuid import UUID

import pytest

from ledger.ids import new_id
from products.payouts.rails import (
    Callback,
    CallbackMalformed,
    CallbackRefused,
    Checked,
    Instruction,
    ListUnavailable,
    Rail,
    Report,
    Sent,
)

Fate = Literal["paid", "failed", "comes_back"]
"""What becomes of a payment: it is paid; it is refused or fails before it is paid; it is paid, and comes back days later."""

Fault = Literal["down", "request_lost", "answer_lost", "error_after_success"]
"""How the line breaks. ``down``: no connection is made. ``request_lost``: it is made, and what is asked is neither done nor
answered. ``answer_lost``: it is done, and the answer never comes. ``error_after_success``: it is done, and answered with an error
that says nothing (a 500)."""

DONE_BEHIND: Final[frozenset[Fault]] = frozenset({"answer_lost", "error_after_success"})
UNDER_WAY: Final = frozenset({"accepted", "in_transit", "paid"})
ASKED_MAX: Final = 20


class Bench(Protocol):
    """One rail, and what a test may do to the world behind it."""

    rail: Rail
    faults: frozenset[Fault]
    """Those that `during` can bring about."""
    calls_back: bool
    """Whether the rail reports by its hook."""
    tells_not_found: bool
    """Whether the rail can tell that it never had a payment."""

    def now(self) -> datetime:
        """The time by the adapter's clock."""
        ...

    def payment(self, fate: Fate = "paid") -> Instruction:
        """A new payment, not asked for yet, that the world will treat so. Amounts differ."""
        ...

    def during(self, fault: Fault) -> AbstractContextManager[object]:
        """The line is broken so until the block ends."""
        ...

    def settle(self) -> None:
        """Time passes: whatever arrived meets its fate, as far as `paid` where it comes back later."""
        ...

    def come_back(self) -> None:
        """More time passes: what was paid and is fated to come back does."""
        ...

    def paid(self) -> Mapping[UUID, Sequence[int]]:
        """By the world's own books, not the adapter's: the amounts, minor units, that were paid for each attempt and not taken
        back. Two amounts for one attempt are what must never be."""
        ...

    def callbacks(self, attempt: UUID) -> Sequence[Callback]:
        """What the world has sent, or would have, to the hook about a payment, in order; authentic. Empty if it never does."""
        ...

    def forgeries(self, callback: Callback) -> Sequence[Callback]:
        """The same callback as others would send it: unsigned, signed with another key, changed, at another time."""
        ...

    def strangers(self) -> Sequence[Callback]:
        """Authentic callbacks that are about no payment of ours, or of a kind that the adapter doesn't know."""
        ...

    def malformed(self) -> Sequence[Callback]:
        """Authentic callbacks that can't be read."""
        ...


class RailContract:
    """The checks. A subclass gives the fixture `bench`."""

    FAULTS: ClassVar[tuple[Fault, ...]] = ("down", "request_lost", "answer_lost", "error_after_success")

    def test_the_same_attempt_sent_twice_is_one_payment_of_its_amount(self, bench: Bench) -> None:
        payment = bench.payment()
        first = submit(bench, payment)
        assert first.state in UNDER_WAY
        again = submit(bench, payment)
        assert again.state in UNDER_WAY | {"unknown"}
        bench.settle()
        final = known(bench, payment, first)
        assert (final.state, final.amount, final.currency) == ("paid", payment.amount, payment.currency)
        assert bench.paid()[payment.attempt] == [payment.amount]

    def test_several_are_answered_one_by_one_in_order(self, bench: Bench) -> None:
        payments = [bench.payment(fate) for fate in ("paid", "failed", "paid")]
        payments = payments[: bench.rail.together_max]
        reports = bench.rail.submit(new_id(), payments, bench.now().date())
        assert [report.attempt for report in reports] == [one.attempt for one in payments]
        bench.settle()
        told = bench.rail.ask(
            [sent(bench, one, report) for one, report in zip(payments, reports, strict=True)]
        )
        assert [report.attempt for report in told] == [one.attempt for one in payments]

    def test_a_payment_that_fails_says_why_and_pays_nobody(self, bench: Bench) -> None:
        payment = bench.payment("failed")
        first = submit(bench, payment)
        bench.settle()
        final = first if first.state == "failed" else known(bench, payment, first)
        assert final.state == "failed"
        assert final.reason is not None
        assert final.code
        assert payment.attempt not in bench.paid()

    def test_what_was_paid_and_came_back_is_told_when_asked(self, bench: Bench) -> None:
        payment = bench.payment("comes_back")
        first = submit(bench, payment)
        bench.settle()
        assert known(bench, payment, first).state == "paid"
        assert bench.paid()[payment.attempt] == [payment.amount]
        bench.come_back()
        final = known(bench, payment, first, also=lambda report: report.state != "paid")
        assert final.state in {"failed", "returned"}
        assert final.reason is not None
        assert payment.attempt not in bench.paid()

    def test_a_payment_that_never_arrived_is_not_found_and_never_failed(self, bench: Bench) -> None:
        report = ask(bench, bench.payment(), None)
        assert report.state == ("not_found" if bench.tells_not_found else "unknown")

    @pytest.mark.parametrize("fault", FAULTS)
    def test_whatever_the_line_does_a_payment_is_made_once_and_known_in_the_end(
        self, bench: Bench, fault: Fault
    ) -> None:
        if fault not in bench.faults:
            pytest.skip("this world's line does not break so")
        payment = bench.payment()
        with bench.during(fault):
            first = submit(bench, payment)
            assert first.state == ("not_sent" if fault == "down" else "unknown")
        bench.settle()
        if fault in DONE_BEHIND:
            assert known(bench, payment, first).state == "paid"
        elif bench.tells_not_found:
            assert ask(bench, payment, first).state == "not_found"
        again = submit(bench, payment)  # what nobody should do, or what is right once it was not found
        assert again.state in UNDER_WAY | {"unknown"}
        bench.settle()
        assert known(bench, payment, again).state == "paid"
        assert bench.paid()[payment.attempt] == [payment.amount]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_broken_line_raises_nothing_and_a_list_that_is_cut_off_is_none(
        self, bench: Bench, fault: Fault
    ) -> None:
        if fault not in bench.faults:
            pytest.skip("this world's line does not break so")
        payment = bench.payment()
        first = submit(bench, payment)
        bench.settle()
        with bench.during(fault):
            assert ask(bench, payment, first).state == "unknown"
            assert bench.rail.check(payment.payee) in (None, Checked(True, "not_checked"))
            with pytest.raises(ListUnavailable):
                list(bench.rail.listed(bench.now() - timedelta(days=1), bench.now() + timedelta(days=1)))
        assert known(bench, payment, first).state == "paid"

    @pytest.mark.parametrize("fate", ["paid", "failed", "comes_back"])
    def test_callbacks_twice_and_in_any_order_say_what_is_true(self, bench: Bench, fate: Fate) -> None:
        if not bench.calls_back:
            pytest.skip("this rail calls nobody back")
        payment = bench.payment(fate)
        first = submit(bench, payment)
        bench.settle()
        bench.come_back()
        callbacks = bench.callbacks(payment.attempt)
        assert callbacks or first.state == "failed"
        reports = [report for one in [*callbacks, *reversed(callbacks)] for report in bench.rail.read(one)]
        assert {report.attempt for report in reports} <= {payment.attempt}
        told = {report.state for report in reports}
        if callbacks:
            assert told & ({"paid", "unknown"} if fate == "paid" else {"failed", "returned", "unknown"})
        assert not told & ({"failed", "returned"} if fate == "paid" else set())
        assert len(bench.paid().get(payment.attempt, [])) == (fate == "paid")

    def test_a_callback_may_come_before_the_answer(self, bench: Bench) -> None:
        if not bench.calls_back or "answer_lost" not in bench.faults:
            pytest.skip("this rail calls nobody back, or loses no answers")
        payment = bench.payment()
        with bench.during("answer_lost"):
            first = submit(bench, payment)
        bench.settle()
        reports = [report for one in bench.callbacks(payment.attempt) for report in bench.rail.read(one)]
        assert {report.attempt for report in reports} == {payment.attempt}
        assert not {report.state for report in reports} & {"failed", "returned", "not_found", "not_sent"}
        assert known(bench, payment, first).state == "paid"

    def test_callbacks_that_others_made_are_refused(self, bench: Bench) -> None:
        if not bench.calls_back:
            with pytest.raises(CallbackRefused):
                bench.rail.read(Callback("POST", "events", {}, b"{}", "127.0.0.1"))
            return
        payment = bench.payment()
        submit(bench, payment)
        bench.settle()
        forgeries = [
            forged for one in bench.callbacks(payment.attempt)[:1] for forged in bench.forgeries(one)
        ]
        assert len(forgeries) > 1
        for forged in forgeries:
            with pytest.raises(CallbackRefused):
                bench.rail.read(forged)

    def test_callbacks_about_nothing_of_ours_say_nothing_and_unreadable_ones_are_malformed(
        self, bench: Bench
    ) -> None:
        for stranger in bench.strangers():
            assert bench.rail.read(stranger) == []
        for unreadable in bench.malformed():
            with pytest.raises(CallbackMalformed):
                bench.rail.read(unreadable)

    def test_the_rails_own_list_says_what_asking_says_and_what_was_paid(self, bench: Bench) -> None:
        since = bench.now() - timedelta(minutes=1)
        fates: tuple[Fate, ...] = ("paid", "failed", "comes_back", "paid")
        payments = [bench.payment(fate) for fate in fates]
        firsts = [submit(bench, one) for one in payments]
        bench.settle()
        bench.come_back()
        told = [known(bench, one, first) for one, first in zip(payments, firsts, strict=True)]
        until = bench.now() + timedelta(days=30)
        listed = [report for report in bench.rail.listed(since, until) if report.attempt is not None]
        by_attempt = {report.attempt: report for report in listed}
        assert len(by_attempt) == len(listed)
        for payment, report in zip(payments, told, strict=True):
            found = by_attempt.get(payment.attempt)
            if report.state == "failed" and found is None:
                continue  # what was refused at the door need not be on a list
            assert found is not None
            assert (found.state, found.amount, found.currency) == (
                report.state,
                payment.amount,
                payment.currency,
            )
        ours = {one.attempt for one in payments}
        paid = {attempt: sum(amounts) for attempt, amounts in bench.paid().items() if attempt in ours}
        assert paid == {
            report.attempt: report.amount
            for report in listed
            if report.attempt in ours and report.state == "paid"
        }
        early = bench.rail.listed(since - timedelta(days=60), since - timedelta(days=30))
        assert not ours & {report.attempt for report in early}


def submit(bench: Bench, payment: Instruction) -> Report:
    """Ask for one payment; its report."""
    [report] = bench.rail.submit(new_id(), [payment], bench.now().date())
    assert report.attempt == payment.attempt
    return report


def sent(bench: Bench, payment: Instruction, first: Report | None) -> Sent:
    """The payment as it is asked about; ``first`` is what was said when it was sent."""
    return Sent(payment.attempt, new_id(), first.rail_reference if first else None, bench.now())


def ask(bench: Bench, payment: Instruction, first: Report | None) -> Report:
    """Ask once about one payment."""
    [report] = bench.rail.ask([sent(bench, payment, first)])
    assert report.attempt == payment.attempt
    return report


def known(
    bench: Bench, payment: Instruction, first: Report, *, also: Callable[[Report], bool] = lambda _: True
) -> Report:
    """Ask until the payment is final, and `also` is true; what is final at once is not asked about (the rail may not list it)."""
    if first.state == "failed":
        return first
    report = ask(bench, payment, first)
    for _ in range(ASKED_MAX):
        if report.state in {"paid", "failed", "returned"} and also(report):
            return report
        bench.settle()
        report = ask(bench, payment, first)
    return report
