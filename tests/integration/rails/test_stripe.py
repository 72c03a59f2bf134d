"""The Stripe rail keeps the rails' contract, to connected accounts and from the platform's own balance."""

from collections.abc import Iterator

import pytest

from tests.integration.rails.contract import RailContract
from tests.integration.rails.stripe_bench import StripeBench, stripe_bench


class TestConnectKeepsTheContract(RailContract):
    @pytest.fixture
    def bench(self) -> Iterator[StripeBench]:
        with stripe_bench("connect") as bench:
            yield bench


class TestPayoutsKeepTheContract(RailContract):
    @pytest.fixture
    def bench(self) -> Iterator[StripeBench]:
        with stripe_bench("payout") as bench:
            yield bench
