"""The contract's asserts say as much as those of the tests that take it over."""

import pytest

pytest.register_assert_rewrite("tests.integration.rails.contract")
