"""The world that tests of members' money run in."""

from tests.integration.remittances.conftest import world as world  # the same world, verified at the end
