"""Phone numbers in the one spelling that is stored and looked up: E.164 (ITU-T), as in ``+971501234567``."""

import re
from typing import Final

import phonenumbers

from products.members.models import InvalidPhone

_LONGEST: Final = 32
_ASCII_NUMBER: Final = re.compile(r"\+[0-9 ().\-]+", re.ASCII)


def e164(number: str) -> str:
    """`number` in E.164; spaces, dots, hyphens and brackets are forgiven, a missing ``+`` is not.

    Only the length and country code are judged, not the number range: numbering plans grow faster than any copy of
    them, and a refused person costs more than a number that never answers. Raises `InvalidPhone`.
    """
    if len(number) > _LONGEST or not _ASCII_NUMBER.fullmatch(number):
        raise InvalidPhone(
            "A phone number is written as + and digits, as in +971501234567.", pointer="/phone"
        )
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        raise InvalidPhone("The phone number's country code is not known.", pointer="/phone") from None
    if not phonenumbers.is_possible_number(parsed):
        raise InvalidPhone("The phone number is too short or too long for its country.", pointer="/phone")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
