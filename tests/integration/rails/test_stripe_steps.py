"""What goes wrong between Stripe's two steps, and at each; what a connected account's holder may try; limits of the line."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from ledger.ids import new_id
from products.payouts.rails import Checked, Instruction, RailPayee, Report, Sent
from tests.integration.rails.contract import Fault, known, submit
from tests.integration.rails.contract import ask as ask_about
from tests.integration.rails.stripe_bench import (
    SLUG,
    StripeBench,
    callback_of,
    stripe_bench,
)
from tests.integration.rails.stripe_contract import Refusal

TRANSFERS, PAYOUTS, REVERSALS = "POST /v1/transfers", "POST /v1/payouts", "POST /v1/transfers/.*/reversals"


@pytest.fixture
def bench() -> Iterator[StripeBench]:
    with stripe_bench() as bench:
        yield bench


@pytest.fixture
def own() -> Iterator[StripeBench]:
    with stripe_bench("payout") as bench:
        yield bench


def asked(bench: StripeBench, pattern: str) -> list[str]:
    """The idempotency keys of the requests to a path, in order."""
    method, path = pattern.split(" ")
    return [
        one.headers.get("idempotency-key", "")
        for one in bench.stripe.requests
        if (one.method, one.path) == (method, path)
    ]


def payouts_of(bench: StripeBench, attempt: UUID) -> list[str]:
    """The states of the payouts that were made for an attempt."""
    return [one["status"] for _, one in bench.stripe.payouts if one["metadata"]["attempt"] == str(attempt)]


class TestBetweenTheSteps:
    @pytest.mark.parametrize("fault", ["request_lost", "answer_lost", "error_after_success"])
    def test_asking_goes_on_with_the_second_step_under_its_key(
        self, bench: StripeBench, fault: Fault
    ) -> None:
        payment = bench.payment()
        with bench.stripe.plan(PAYOUTS, fault=fault):
            first = submit(bench, payment)
        assert first.state == "unknown"
        assert first.rail_reference == bench.stripe.transfers[0]["id"]
        assert ask_about(bench, payment, first).state == "accepted"
        bench.settle()
        assert known(bench, payment, first).state == "paid"
        assert payouts_of(bench, payment.attempt) == ["paid"]
        assert set(asked(bench, PAYOUTS)) <= {f"{payment.attempt}:payout"}
        assert asked(bench, TRANSFERS) == [f"{payment.attempt}:transfer"]

    def test_a_payment_that_stripe_refuses_to_pay_out_comes_back_before_it_has_failed(
        self, bench: StripeBench
    ) -> None:
        before = bench.stripe.balances[None, "eur"] = 10_000
        payment = bench.payment_to(bench.stripe.account(payouts_enabled=False), 4_000)
        report = submit(bench, payment)
        assert (report.state, report.reason, report.code) == ("failed", "refused", "payouts_not_allowed")
        assert bench.stripe.balances[None, "eur"] == before
        [listed] = bench.rail.listed(bench.now() - timedelta(hours=1), bench.now() + timedelta(hours=1))
        assert (listed.state, listed.code, listed.amount) == ("failed", "payouts_not_allowed", 4_000)
        again = ask_about(bench, payment, report)
        assert (again.state, again.code) == ("failed", "payouts_not_allowed")

    @pytest.mark.parametrize("fault", ["request_lost", "answer_lost", "error_after_success"])
    def test_until_a_reversal_is_certain_nothing_is(self, bench: StripeBench, fault: Fault) -> None:
        payment = bench.payment_to(bench.stripe.account(payouts_enabled=False), 4_000)
        with bench.stripe.plan(REVERSALS, fault=fault):
            report = submit(bench, payment)
        assert report.state == "unknown"
        final = ask_about(bench, payment, report)
        assert (final.state, final.code) == ("failed", "payouts_not_allowed")
        assert bench.stripe.transfers[0]["amount_reversed"] == 4_000
        assert len(bench.stripe.transfers[0]["reversals"]["data"]) == 1

    def test_a_reversal_that_the_accounts_balance_refuses_is_seen_through_another_day(
        self, bench: StripeBench
    ) -> None:
        account = bench.stripe.account("failed")
        payment = bench.payment_to(account, 4_000)
        first = submit(bench, payment)
        bench.settle()
        bench.stripe.balances[account, "eur"] = 3_999
        for _ in range(3):
            report = ask_about(bench, payment, first)
            assert (report.state, report.code) == ("unknown", "balance_insufficient")
            assert report.ask_again_at is not None
        bench.stripe.balances[account, "eur"] = 4_000
        tomorrow = bench.now().replace(hour=0, minute=0, second=0) + timedelta(days=1)
        bench.clock.advance(tomorrow - bench.now())  # Stripe has not forgotten today's key yet
        final = ask_about(bench, payment, first)
        assert (final.state, final.reason, final.code) == ("failed", "payee_closed", "account_closed")

    def test_what_is_taken_back_in_part_by_hand_is_for_people_to_look_at(self, bench: StripeBench) -> None:
        payment = bench.payment()
        first = submit(bench, payment)
        bench.settle()
        bench.stripe.transfers[0]["amount_reversed"] = 1
        assert ask_about(bench, payment, first).code == "partly_reversed"
        bench.stripe.transfers[0]["amount_reversed"] = payment.amount
        assert ask_about(bench, payment, first).state == "returned"

    def test_a_reversal_by_hand_of_what_was_paid_is_a_return(self, bench: StripeBench) -> None:
        payment = bench.payment()
        first = submit(bench, payment)
        bench.settle()
        bench.stripe.payouts[0][1]["reversed_by"] = "po_reversal"
        bench.stripe.balances[bench.stripe.payouts[0][0], "eur"] += payment.amount
        final = ask_about(bench, payment, first)
        assert (final.state, final.code) == ("returned", "payout_reversed")
        assert bench.stripe.transfers[0]["reversed"]


class TestOnce:
    def test_eight_senders_at_once_make_one_payment(self, bench: StripeBench) -> None:
        payment = bench.payment()
        reports: list[Report] = []
        senders = [threading.Thread(target=lambda: reports.append(submit(bench, payment))) for _ in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)
        assert len(reports) == 8
        assert payouts_of(bench, payment.attempt) == ["pending"]
        assert bench.paid()[payment.attempt] == [payment.amount]

    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_after_stripe_has_forgotten_the_keys_too(self, mode: str) -> None:
        with stripe_bench(mode) as bench:
            payment = bench.payment()
            submit(bench, payment)
            bench.clock.advance(timedelta(days=2))
            assert submit(bench, payment).state == "accepted"
            assert bench.paid()[payment.attempt] == [payment.amount]
            assert payouts_of(bench, payment.attempt) == ["pending"]

    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_where_looking_is_refused_nothing_is_said_to_have_failed_or_sent_again(self, mode: str) -> None:
        with stripe_bench(mode) as bench:
            payment = bench.payment()
            submit(bench, payment)
            bench.clock.advance(timedelta(days=2))
            with bench.stripe.plan("GET .*", refusal=Refusal(400, "invalid_request_error", "moon_phase")):
                report = submit(bench, payment)
            assert (report.state, report.code) == ("unknown", "moon_phase")
            assert bench.paid()[payment.attempt] == [payment.amount]

    def test_an_id_that_tells_no_time_is_looked_for_first(self, bench: StripeBench) -> None:
        payment = bench.payment()
        payment = Instruction(UUID(int=7), payment.reference, payment.amount, payment.currency, payment.payee)
        assert submit(bench, payment).state == "accepted"
        assert submit(bench, payment).state == "accepted"
        assert [one.method for one in bench.stripe.requests[:2]] == ["GET", "POST"]
        assert bench.paid()[payment.attempt] == [payment.amount]

    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_another_body_under_the_same_attempt_pays_nobody_else(self, mode: str) -> None:
        with stripe_bench(mode) as bench:
            payment = bench.payment()
            submit(bench, payment)
            other = Instruction(payment.attempt, payment.reference, payment.amount + 1, "EUR", payment.payee)
            report = submit(bench, other)
            assert (report.state, report.code) == ("unknown", "idempotency_error")
            assert ask_about(bench, other, report).amount == payment.amount
            assert bench.paid()[payment.attempt] == [payment.amount]

    def test_nothing_is_repeated_behind_our_back(self, bench: StripeBench) -> None:
        with bench.during("answer_lost"):
            submit(bench, bench.payment())
        assert len(asked(bench, TRANSFERS)) == 1

    def test_once_stripe_is_silent_the_rest_stay_here(self, bench: StripeBench) -> None:
        payments = [bench.payment() for _ in range(20)]
        with bench.during("request_lost"):
            reports = bench.rail.submit(new_id(), payments, bench.now().date())
            told = bench.rail.ask([Sent(one.attempt, new_id(), None, bench.now()) for one in payments])
        assert [report.attempt for report in reports] == [one.attempt for one in payments]
        assert {report.state for report in reports[:8]} <= {"unknown", "not_sent"}
        assert {(report.state, report.code) for report in reports[8:]} == {("not_sent", "not_begun")}
        assert {report.state for report in told} == {"unknown"}
        assert bench.stripe.transfers == []


class TestFinal:
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("no_account", "payee_unknown"),
            ("incorrect_account_holder_name", "name_mismatch"),
            ("new_code", "other"),
        ],
    )
    def test_a_payout_that_fails_days_after_it_was_paid_says_why_by_its_event(
        self, bench: StripeBench, code: str, reason: str
    ) -> None:
        payment = bench.payment_to(bench.stripe.account("comes_back", code), 4_000)
        submit(bench, payment)
        bench.settle()
        bench.come_back()
        failed = bench.stripe.events[-1]
        assert failed["type"] == "payout.failed"
        [report] = bench.rail.read(callback_of(*bench.stripe.signed(failed)))
        assert (report.state, report.reason, report.code) == ("failed", reason, code)
        assert report.at is not None
        assert report.at.timestamp() == failed["created"]
        assert bench.stripe.transfers[0]["reversed"]

    def test_an_old_event_that_arrives_last_says_what_is_true_now(self, bench: StripeBench) -> None:
        payment = bench.payment()
        submit(bench, payment)
        bench.settle()
        states = {
            event["type"]: bench.rail.read(callback_of(*bench.stripe.signed(event)))[0].state
            for event in reversed(bench.stripe.events)
        }
        assert states == {
            "transfer.created": "accepted",
            "payout.created": "paid",
            "payout.updated": "paid",
            "payout.paid": "paid",
        }

    def test_a_payout_that_is_canceled_comes_back(self, bench: StripeBench) -> None:
        payment = bench.payment()
        first = submit(bench, payment)
        account, payout = bench.stripe.payouts[0]
        bench.stripe.balances[account, "eur"] += payment.amount
        bench.stripe._changed(account, payout, "canceled", "canceled")
        [report] = bench.rail.read(callback_of(*bench.stripe.signed(bench.stripe.events[-1])))
        assert (report.state, report.code) == ("failed", "canceled")
        assert ask_about(bench, payment, first).state == "failed"

    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_what_stripe_takes_for_itself_is_told_with_the_payment(self, mode: str) -> None:
        with stripe_bench(mode) as bench:
            bench.stripe.fee = 25
            payment = bench.payment()
            first = submit(bench, payment)
            assert first.fee is None
            bench.settle()
            final = ask_about(bench, payment, first)
            assert final.fee == 25
            assert final.ask_again_at is not None
            assert timedelta(days=8) < final.ask_again_at - bench.now() < timedelta(days=10)
            with bench.stripe.plan("GET /v1/balance_transactions/.*", fault="answer_lost"):
                report = ask_about(bench, payment, first)
            assert (report.state, report.fee) == ("paid", None)
            bench.clock.advance(timedelta(days=10))
            assert ask_about(bench, payment, first).ask_again_at is None

    def test_events_of_another_rail_on_the_same_stripe_account_say_nothing(self, bench: StripeBench) -> None:
        submit(bench, bench.payment())
        transfer = bench.stripe.transfers[0]
        for rail, said in ((SLUG, 1), ("another", 0)):
            about = transfer | {"metadata": transfer["metadata"] | {"rail": rail}}
            event = bench.stripe.event("transfer.created", about)
            assert len(bench.rail.read(callback_of(*bench.stripe.signed(event)))) == said

    def test_an_event_while_stripe_is_silent_is_a_reason_to_ask_later(self, bench: StripeBench) -> None:
        payment = bench.payment()
        submit(bench, payment)
        bench.settle()
        event = callback_of(*bench.stripe.signed(bench.stripe.events[-1]))
        with bench.during("answer_lost"):
            [report] = bench.rail.read(event)
        assert (report.state, report.attempt) == ("unknown", payment.attempt)
        assert report.ask_again_at == bench.now()


class TestHolders:
    def test_a_holders_own_payouts_with_our_attempt_in_them_change_nothing(self, bench: StripeBench) -> None:
        stripe = bench.stripe
        victim = bench.payment()
        submit(bench, victim)
        thief = stripe.account("failed")
        forged = {
            "id": "po_forged",
            "object": "payout",
            "amount": victim.amount,
            "currency": "eur",
            "created": int(bench.now().timestamp()),
            "metadata": {"attempt": str(victim.attempt), "rail": SLUG},
            "status": "failed",
            "failure_code": "account_closed",
            "balance_transaction": None,
        }
        stripe.payouts.append((thief, forged))
        event = stripe.event("payout.failed", forged, thief)
        assert bench.rail.read(callback_of(*stripe.signed(event))) == []
        account = victim.payee.destination["token"]
        stripe.payouts.append((account, forged | {"id": "po_later", "created": 2**33}))
        stripe.payouts.insert(0, (account, forged | {"id": "po_other", "amount": victim.amount + 1}))
        assert ask_about(bench, victim, None).state == "accepted"
        assert not stripe.transfers[0]["reversed"]

    def test_an_account_that_left_the_platform_hides_no_other_payments_from_the_list(
        self, bench: StripeBench
    ) -> None:
        gone, there = bench.payment(), bench.payment()
        for payment in (gone, there):
            submit(bench, payment)
        del bench.stripe.accounts[gone.payee.destination["token"]]
        other = bench.stripe.transfers[0]["metadata"] | {"rail": "another-rail", "attempt": str(new_id())}
        bench.stripe.transfers.append(bench.stripe.transfers[0] | {"id": "tr_other", "metadata": other})
        reports = bench.rail.listed(bench.now() - timedelta(hours=1), bench.now() + timedelta(hours=1))
        assert {(report.attempt, report.state, report.amount) for report in reports} == {
            (gone.attempt, "unknown", gone.amount),
            (there.attempt, "accepted", there.amount),
        }

    @pytest.mark.parametrize(
        ("about", "checked"),
        [
            ({}, Checked(True, "matches")),
            ({"individual": None}, Checked(True, "not_checked")),
            ({"individual": {"first_name": "Jean", "last_name": "Bosco"}}, Checked(True, "differs")),
            ({"individual": {"first_name": "ALINE", "last_name": "Uwâse"}}, Checked(True, "matches")),
            ({"payouts_enabled": False}, Checked(False, "matches", "payouts_disabled")),
            ({"capabilities": {"transfers": "inactive"}}, Checked(False, "matches", "transfers_inactive")),
            ({"capabilities": {}}, Checked(False, "matches", "transfers_inactive")),
            ({"currency": "usd"}, Checked(False, "matches", "currency_not_supported")),
            (
                {"settings": {"payouts": {"schedule": {"interval": "daily"}}}},
                Checked(False, "matches", "automatic_payouts"),
            ),
        ],
    )
    def test_a_payee_is_checked_before_anything_is_paid(
        self, bench: StripeBench, about: dict[str, object], checked: Checked
    ) -> None:
        account = bench.stripe.account(**about)  # type: ignore[arg-type]  # parts of an account
        assert bench.rail.check(RailPayee("Aline Uwase", "card", {"token": account})) == checked

    def test_an_account_that_nobody_knows_is_not_reachable(self, bench: StripeBench) -> None:
        payee = RailPayee("Aline Uwase", "card", {"token": "acct_unknown"})
        assert bench.rail.check(payee) == Checked(False, "not_checked", "account_invalid")
