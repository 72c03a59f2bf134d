"""Stripe's words for what went wrong, and ours.

Two lists of Stripe's: the failure codes of a payout (what a bank said) and the error codes of a request (what Stripe refused).
A code that is in neither is `other`, and stands beside the reason as it came.
"""

from collections.abc import Mapping
from typing import Final

from products.payouts.rails import FailureReason

_OF_PAYOUTS: Final[Mapping[str, FailureReason]] = {
    "account_closed": "payee_closed",
    "account_frozen": "payee_closed",
    "bank_account_restricted": "payee_limit",
    "bank_ownership_changed": "payee_unknown",
    "could_not_process": "other",
    "debit_not_authorized": "refused",
    "declined": "refused",
    "incorrect_account_holder_address": "name_mismatch",
    "incorrect_account_holder_name": "name_mismatch",
    "incorrect_account_holder_tax_id": "name_mismatch",
    "insufficient_funds": "insufficient_float",
    "invalid_account_number": "payee_unknown",
    "invalid_currency": "refused",
    "no_account": "payee_unknown",
    "unsupported_card": "refused",
}

_OF_REQUESTS: Final[Mapping[str, FailureReason]] = {
    "account_closed": "payee_closed",
    "account_invalid": "payee_unknown",
    "account_number_invalid": "payee_unknown",
    "amount_too_large": "rail_limit",
    "amount_too_small": "rail_limit",
    "balance_insufficient": "insufficient_float",
    "bank_account_declined": "refused",
    "bank_account_restricted": "payee_limit",
    "bank_account_unusable": "payee_closed",
    "capability_not_enabled": "refused",
    "expired_card": "payee_closed",
    "instant_payouts_limit_exceeded": "rail_limit",
    "instant_payouts_unsupported": "refused",
    "insufficient_capabilities_for_transfer": "refused",
    "insufficient_funds": "insufficient_float",
    "invalid_card_type": "refused",
    "no_account": "payee_unknown",
    "not_allowed_on_standard_account": "refused",
    "payout_reconciliation_not_ready": "refused",
    "payouts_limit_exceeded": "rail_limit",
    "payouts_not_allowed": "refused",
    "resource_missing": "payee_unknown",
    "transfers_not_allowed": "refused",
}


def of_payout(code: str | None) -> FailureReason:
    """Why a bank did not take a payout, from its `failure_code`."""
    return _OF_PAYOUTS.get(code or "", "other")


def of_request(code: str | None) -> FailureReason:
    """Why Stripe refused a request, from the error's `code`."""
    return _OF_REQUESTS.get(code or "", "other")
