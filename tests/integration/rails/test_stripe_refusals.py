"""What Stripe refuses and what it answers that is no answer; the line to it; what a rail is not built with."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from integrations.rails import directory
from integrations.rails.setting import InvalidRailOptions
from ledger.clock import FixedClock
from ledger.ids import new_id
from products.payouts.rails import Checked
from tests.integration.rails.contract import ask as ask_about
from tests.integration.rails.contract import known, submit
from tests.integration.rails.stripe_bench import (
    SLUG,
    StripeBench,
    setting,
    stripe_bench,
    stripe_rail,
)
from tests.integration.rails.stripe_contract import API_KEY, API_VERSION, Refusal


@pytest.fixture
def bench() -> Iterator[StripeBench]:
    with stripe_bench() as bench:
        yield bench


@pytest.fixture
def own() -> Iterator[StripeBench]:
    with stripe_bench("payout") as bench:
        yield bench


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
                assert bench.rail.check(payment.payee) in (None, Checked(True, "not_checked"))
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

    def test_after_the_time_for_an_answer_it_is_unknown(self, bench: StripeBench) -> None:
        bench.served.server.silence_seconds = 600
        rail = stripe_rail(bench.clock, bench.stripe.url, timeout_seconds=0.2)
        with bench.during("request_lost"):
            [report] = rail.submit(new_id(), [bench.payment()], bench.now().date())
        assert (report.state, report.code) == ("unknown", "no_answer")
        rail.close()

    def test_the_list_is_read_to_its_end_and_holds_this_rails_payments_only(self, own: StripeBench) -> None:
        submit(own, own.payment())
        [(_, first)] = own.stripe.payouts
        for number in range(120):
            rail = "another" if number < 10 else SLUG
            metadata = first["metadata"] | {"attempt": str(new_id()), "rail": rail}
            more = {"id": f"po_{number}", "amount": number + 1, "metadata": metadata}
            own.stripe.payouts.append((None, first | more))
        wanted = first["amount"] + sum(range(11, 121))
        pages = len(own.stripe.requests)
        reports = list(own.rail.listed(own.now() - timedelta(hours=1), own.now() + timedelta(hours=1)))
        assert len(own.stripe.requests) - pages == 2
        assert sum(report.amount or 0 for report in reports) == wanted

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
