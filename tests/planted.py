"""What tests plant as personal data and secrets, and how a search of the logs knows it again.

A test that needs a phone, a name, a document or an account takes one from here or in the same series, so that
`tests.log_watch` finds it in any log of any process.
"""

import re
from typing import Final

PHONE: Final = "+971501234567"
EMAIL: Final = "grace.uwase@mail.example"
GIVEN_NAME: Final = "Graciosa"
FAMILY_NAME: Final = "Uwamahoroye"
DOCUMENT: Final = "PC7719935"
NATIONAL_ID: Final = "1199080012345678"
IBAN: Final = "DE89370400440532013000"
MOBILE_ACCOUNT: Final = "250788123456"
BIRTH_DATE: Final = "1990-05-01"
PARTNER_REFERENCE: Final = "A-PLANTED-17"


def phone(number: int) -> str:
    """The phone of the member `number`, in one series."""
    return f"+25078{number:07d}"


PERSONAL: Final = re.compile(
    "|".join(
        [
            r"971501234567",
            r"25078\d{7}",
            *(
                re.escape(one)
                for one in (
                    EMAIL,
                    GIVEN_NAME,
                    FAMILY_NAME,
                    DOCUMENT,
                    NATIONAL_ID,
                    IBAN,
                    MOBILE_ACCOUNT,
                    BIRTH_DATE,
                    PARTNER_REFERENCE,
                )
            ),
        ]
    )
)
SECRET: Final = re.compile(
    r"whsec_[A-Za-z0-9+/]{8}|mzn_(?:test|live|ops)_[A-Za-z0-9+/_-]{8}|eyJ[\w-]{8,}\.[\w-]+|-----BEGIN|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}="
)
