"""The rail of bank files: ISO 20022 credit transfers out (pain.001.001.09), the bank's answers back in (pain.002, camt.054)."""

from collections.abc import Mapping

from integrations.rails.bank_file.options import SECRETS, BankFileOptions
from integrations.rails.bank_file.rail import BankFileRail
from integrations.rails.setting import Setting

__all__ = ["CHECKS_PAYEES", "OPTIONS", "SECRETS", "BankFileRail", "build"]

OPTIONS = BankFileOptions
CHECKS_PAYEES = True
"""It finds the payees that no file can name."""


def build(
    options: Mapping[str, object],
    secrets: Mapping[str, str],  # noqa: ARG001  of every kind's signature; this one has none
    setting: Setting,
) -> BankFileRail:
    """The adapter of one bank's rail. Raises pydantic's ValidationError for options that were not validated."""
    return BankFileRail(BankFileOptions.model_validate(dict(options)), setting)
