"""What goes wrong between Stripe's two steps, and at each; what a connected account's holder may try; limits of the line."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from integrations.rails import directory
from integrations.rails.setting import InvalidRailOptions
from ledger.clock import FixedClock
from ledger.ids import new_id
from products.payouts.rails import Checked, Instruction, RailPayee, Report, Sent
from tests.integration.rails.contract import Fault, known, submit
from tests.integration.rails.contract import ask as ask_about
from tests.integration.rails.stripe_bench import (
    SLUG,
    StripeBench,
    callback_of,
    setting,
    stripe_bench,
    stripe_rail,
)
from tests.integration.rails.stripe_contract import API_KEY, API_VERSION, Refusal

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
        bench.stripe.balances[account, "eur"] = 4_000
        bench.clock.advance(timedelta(days=1))
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
            sender.join(20)
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

    def test_a_silent_stripe_is_asked_once_and_the_rest_stay_here(self, bench: StripeBench) -> None:
        payments = [bench.payment() for _ in range(5)]
        with bench.during("request_lost"):
            reports = bench.rail.submit(new_id(), payments, bench.now().date())
            assert [report.state for report in reports] == ["unknown", *["not_sent"] * 4]
            told = bench.rail.ask([Sent(one.attempt, new_id(), None, bench.now()) for one in payments])
            assert [report.state for report in told] == ["unknown"] * 5
        assert bench.stripe.transfers == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("refusal", "state", "reason", "code"),
        [
            (
                Refusal(400, "invalid_request_error", "balance_insufficient"),
                "failed",
                "insufficient_float",
                None,
            ),
            (Refusal(402, "card_error", "insufficient_funds"), "failed", "insufficient_float", None),
            (Refusal(400, "invalid_request_error", "account_closed"), "failed", "payee_closed", None),
            (Refusal(400, "invalid_request_error", "payouts_not_allowed"), "failed", "refused", None),
            (Refusal(400, "invalid_request_error", "amount_too_large"), "failed", "rail_limit", None),
            (Refusal(404, "invalid_request_error", "resource_missing"), "failed", "payee_unknown", None),
            (Refusal(403, "invalid_request_error", "account_invalid"), "failed", "payee_unknown", None),
            (Refusal(400, "invalid_request_error", "moon_phase"), "failed", "other", None),
            (Refusal(400, "invalid_request_error"), "failed", "other", "invalid_request_error"),
            (Refusal(400, "idempotency_error"), "unknown", None, "idempotency_error"),
            (Refusal(401, "invalid_request_error"), "not_sent", None, "api_key_refused"),
            (Refusal(403, "invalid_request_error", "permission"), "not_sent", None, None),
            (Refusal(429, "invalid_request_error", "rate_limit"), "not_sent", None, None),
            (Refusal(429, "invalid_request_error", "lock_timeout"), "unknown", None, None),
            (Refusal(409, "invalid_request_error", "lock_timeout"), "unknown", None, None),
            (Refusal(409, "idempotency_error", "idempotency_key_in_use"), "unknown", None, None),
            (Refusal(500, "api_error"), "unknown", None, "http_500"),
            (Refusal(503, "api_error"), "unknown", None, "http_503"),
            (Refusal(302, "api_error"), "unknown", None, "http_302"),
        ],
        ids=lambda value: f"{value.status} {value.error['code']}" if isinstance(value, Refusal) else "",
    )
    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_each_error_says_what_it_says(
        self, mode: str, refusal: Refusal, state: str, reason: str | None, code: str | None
    ) -> None:
        with stripe_bench(mode) as bench:
            with bench.stripe.plan(refusal=refusal):
                report = submit(bench, bench.payment())
            wanted = code or refusal.error["code"]
            assert (report.state, report.reason, report.code) == (state, reason, wanted)

    @pytest.mark.parametrize(
        "answer",
        [b"", b"<html>", b"[]", b"{}", b"null", b'{"id": 5}', b'{"id": "x", "amount": "1e9"}', b"\xff"],
    )
    @pytest.mark.parametrize("mode", ["connect", "payout"])
    def test_an_answer_that_is_none_is_unknown_and_found_again(self, mode: str, answer: bytes) -> None:
        with stripe_bench(mode) as bench:
            payment = bench.payment()
            with bench.stripe.plan("POST .*", answer=answer):
                first = submit(bench, payment)
            assert first.state == "unknown"
            with bench.stripe.plan("GET .*", answer=answer):
                assert ask_about(bench, payment, first).state in {"unknown", "not_found"}
                assert bench.rail.check(payment.payee) is None
            bench.settle()
            assert known(bench, payment, first).state in {"accepted", "paid"}
            assert bench.paid()[payment.attempt] == [payment.amount]

    def test_an_answer_without_end_is_cut_off(self, own: StripeBench) -> None:
        with own.stripe.plan(answer=b" " * (5 * 2**20)):
            assert submit(own, own.payment()).state == "unknown"

    @pytest.mark.parametrize("token", ["", "acct_", "acct_1/../x", "cus_5", "acct_1\n", "ba_1"])
    def test_what_is_no_account_is_not_even_asked_for(self, bench: StripeBench, token: str) -> None:
        payment = bench.payment_to(token)
        report = submit(bench, payment)
        assert (report.state, report.reason) == ("failed", "payee_unknown")
        assert bench.rail.check(payment.payee) == Checked(False, "not_checked", "no_account")
        assert bench.stripe.requests == []

    def test_amounts_that_stripe_can_not_be_told_are_refused_here(self) -> None:
        with stripe_bench("payout", currency="KWD") as bench:
            way = bench.stripe.bank_account(currency="kwd")
            report = submit(bench, bench.payment_to(way, 5_124, "KWD"))
            assert (report.state, report.code) == ("failed", "amount_not_payable")
            paid = submit(bench, bench.payment_to(way, 5_120, "KWD"))
            assert (paid.state, paid.amount, paid.currency) == ("accepted", 5_120, "KWD")
            assert len(bench.stripe.payouts) == 1

    @pytest.mark.parametrize(("currency", "there"), [("UGX", 700_00), ("RWF", 700), ("MGA", 7)])
    def test_other_decimals_there_are_the_same_money_here(self, currency: str, there: int) -> None:
        with stripe_bench("connect", currency=currency) as bench:
            payment = bench.payment_to(bench.stripe.account(currency=currency.lower()), 700, currency)
            first = submit(bench, payment)
            bench.settle()
            assert known(bench, payment, first).amount == 700
            assert bench.stripe.transfers[0]["amount"] == bench.stripe.payouts[0][1]["amount"] == there


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
            assert ask_about(bench, payment, first).fee == 25
            with bench.stripe.plan("GET /v1/balance_transactions/.*", fault="answer_lost"):
                report = ask_about(bench, payment, first)
            assert (report.state, report.fee) == ("paid", None)

    def test_an_event_while_stripe_is_silent_is_a_reason_to_ask_later(self, bench: StripeBench) -> None:
        payment = bench.payment()
        submit(bench, payment)
        bench.settle()
        event = callback_of(*bench.stripe.signed(bench.stripe.events[-1]))
        with bench.during("answer_lost"):
            [report] = bench.rail.read(event)
        assert (report.state, report.attempt) == ("unknown", payment.attempt)


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
        stripe.payouts.append((victim.payee.destination["token"], forged | {"created": 2**33}))
        assert ask_about(bench, victim, None).state == "accepted"
        assert not stripe.transfers[0]["reversed"]

    def test_an_account_that_left_the_platform_hides_no_other_payments_from_the_list(
        self, bench: StripeBench
    ) -> None:
        gone, there = bench.payment(), bench.payment()
        for payment in (gone, there):
            submit(bench, payment)
        del bench.stripe.accounts[gone.payee.destination["token"]]
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


class TestTheLine:
    def test_requests_carry_the_pinned_version_and_keys_of_their_own_step(self, bench: StripeBench) -> None:
        payment = bench.payment()
        submit(bench, payment)
        transfer, payout = bench.stripe.requests
        assert {one.headers["stripe-version"] for one in (transfer, payout)} == {API_VERSION}
        assert transfer.headers["idempotency-key"] == f"{payment.attempt}:transfer"
        assert payout.headers["idempotency-key"] == f"{payment.attempt}:payout"
        assert (transfer.account, payout.account) == (None, payment.payee.destination["token"])
        metadata = {"attempt": str(payment.attempt), "rail": SLUG, "reference": payment.reference}
        assert transfer.form["metadata"] == metadata
        assert payout.form["metadata"] == metadata | {"transfer": bench.stripe.transfers[0]["id"]}
        assert "Uwase" not in repr(bench.stripe.requests)

    def test_proxies_of_the_environment_are_not_used(
        self, bench: StripeBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        rail = stripe_rail(bench.clock, bench.stripe.url)
        payment = bench.payment()
        [report] = rail.submit(new_id(), [payment], bench.now().date())
        rail.close()
        assert report.state == "accepted"

    def test_the_list_is_read_to_its_end_and_holds_this_rails_payments_only(self, own: StripeBench) -> None:
        way = own.stripe.bank_account()
        payments = [own.payment_to(way) for _ in range(120)]
        for start in range(0, 120, own.rail.together_max):
            own.rail.submit(new_id(), payments[start : start + own.rail.together_max], own.now().date())
        for _, payout in own.stripe.payouts[:10]:
            payout["metadata"]["rail"] = "another"
        pages = len(own.stripe.requests)
        reports = list(own.rail.listed(own.now() - timedelta(hours=1), own.now() + timedelta(hours=1)))
        assert len(own.stripe.requests) - pages == 2
        assert sum(report.amount or 0 for report in reports) == sum(one.amount for one in payments[10:])

    def test_spans_side_by_side_share_nothing_and_lose_nothing(self, own: StripeBench) -> None:
        start = own.now().replace(microsecond=0)
        own.clock.advance(start - own.now())
        for _ in range(4):
            submit(own, own.payment())
            own.clock.advance(timedelta(seconds=0.5))
        edge = start + timedelta(seconds=0.7)
        before = list(own.rail.listed(start, edge))
        after = list(own.rail.listed(edge, start + timedelta(seconds=9)))
        assert len({report.attempt for report in before} ^ {report.attempt for report in after}) == 4

    @pytest.mark.parametrize(
        ("environment", "options", "api_key", "webhook_secrets"),
        [
            ("production", {}, API_KEY, "whsec_12345678"),
            ("sandbox", {}, "sk_live_12345678", "whsec_12345678"),
            ("sandbox", {}, "pk_test_12345678", "whsec_12345678"),
            ("sandbox", {}, API_KEY, "secret"),
            ("sandbox", {}, API_KEY, ""),
            ("sandbox", {}, API_KEY, " ".join(["whsec_12345678"] * 5)),
            ("sandbox", {"api_base": "http://stripe.example"}, API_KEY, "whsec_12345678"),
            ("production", {"api_base": "http://127.0.0.1"}, "sk_live_12345678", "whsec_12345678"),
            ("sandbox", {"api_base": "file:///etc"}, API_KEY, "whsec_12345678"),
            ("sandbox", {"mode": "card"}, API_KEY, "whsec_12345678"),
            ("sandbox", {"max_network_retries": 3}, API_KEY, "whsec_12345678"),
            ("sandbox", {"statement_descriptor": "x" * 23}, API_KEY, "whsec_12345678"),
        ],
    )
    def test_a_rail_that_is_not_safe_is_not_built_and_no_secret_is_named(
        self, environment: str, options: dict[str, object], api_key: str, webhook_secrets: str
    ) -> None:
        clock = FixedClock(datetime.now(UTC))
        secrets = {"api_key": api_key, "webhook_secrets": webhook_secrets}
        with pytest.raises(InvalidRailOptions) as refused:
            directory.build(
                "stripe", *directory.validated("stripe", options, secrets), setting(clock, environment)
            )
        assert api_key not in str(refused.value)

    def test_production_takes_live_keys(self) -> None:
        clock = FixedClock(datetime.now(UTC))
        kept, secrets = directory.validated(
            "stripe", {}, {"api_key": "rk_live_12345678", "webhook_secrets": "whsec_12345678"}
        )
        directory.build("stripe", kept, secrets, setting(clock, "production")).close()
