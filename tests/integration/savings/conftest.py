"""The world of tests of vesting, withdrawals and what they forfeit: the remittances' own, verified when a test is done with it."""

from tests.integration.remittances.conftest import world

__all__ = ["world"]
