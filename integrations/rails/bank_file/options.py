"""What a rail of the kind `bank_file` is told: the account that pays, what the bank takes, and when."""

import re
from datetime import date, time
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from stdnum import bic, iban
from stdnum.exceptions import ValidationError

from integrations.rails.bank_file.writing import Unwritable, written
from ledger.errors import InvalidInput
from products.settlements.calendar import business_days

NAME_CHARACTERS_MAX: Final = 70
"""Of a name: what banks print and compare (EPC; the schema would take 140)."""
PAYMENTS_MAX: Final = 2_000

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{1,4}$")]
MemberCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,35}$")]

CLEARING_SYSTEMS: Final = {
    "AU": "AUBSB",
    "CA": "CACPA",
    "CN": "CNAPS",
    "GB": "GBDSC",
    "HK": "HKNCC",
    "IN": "INFSC",
    "JP": "JPZGN",
    "NZ": "NZNCC",
    "SG": "SGIBG",
    "TH": "THCBC",
    "TW": "TWNCC",
    "US": "USABA",
    "ZA": "ZANCC",
}
"""By the bank's country, what its ``bank_code`` is a member's id of (ISO 20022 external code set, clearing systems)."""

SECRETS: Final = frozenset[str]()
"""A file is fetched by a person, who proves to Mizan who they are: there is nothing to keep secret."""


class BankFileOptions(BaseModel):
    """The options of a bank file rail, as its programme's bank has agreed them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    debtor_name: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
    """Who pays: the account's holder."""
    debtor_account: Annotated[str, Field(min_length=1, max_length=34, pattern=r"^[A-Za-z0-9/ -]+$")]
    """The account that pays: an IBAN, or the bank's own number."""
    debtor_bic: str | None = None
    debtor_bank_code: MemberCode | None = None
    """The bank: its BIC, or its member id in the clearing system of `debtor_country`."""
    debtor_country: Country
    initiating_id: Annotated[str, Field(min_length=1, max_length=35, pattern=r"^[A-Za-z0-9-]+$")] | None = (
        None
    )
    """Who we are to the bank, where it gave us an id."""

    payments_max: Annotated[int, Field(ge=1, le=PAYMENTS_MAX)] = PAYMENTS_MAX
    """Payments in one file at most."""
    batch_booking: bool = True
    """Whether the bank books the file as one debit."""
    charge_bearer: Literal["SLEV", "SHAR", "DEBT", "CRED"] = "SLEV"
    service_level: Code | None = None
    """``SEPA``, ``NURG``, ``URGP`` …, where the bank asks for one."""
    category_purpose: Code | None = None
    """``PENS``, ``SSBE`` (social security benefit) …, where the bank asks for one."""
    remittance_prefix: Annotated[str, Field(max_length=60)] = ""
    """What the payee reads before the payout's reference."""
    countries: Annotated[tuple[Country, ...], Field(max_length=250)] | None = None
    """Countries of payees' accounts that the bank pays to; None: wherever it can."""
    clearing_systems: dict[Country, Annotated[str, StringConstraints(pattern=r"^[A-Z]{3,5}$")]] = Field(
        default_factory=dict
    )
    """More clearing systems, or others, than Mizan knows: ``{"NP": "NPNCH"}``."""

    time_zone: str = "UTC"
    cut_off: time = time(15, 0)
    """What is made at this time or later is for the bank's next business day; in `time_zone`."""
    holidays: Annotated[tuple[Country, ...], Field(max_length=4)] = ()
    """Countries whose weekends and public holidays the bank keeps; with none it is closed on Saturdays and Sundays."""
    closed_on: Annotated[tuple[date, ...], Field(max_length=366)] = ()
    """More days on which the bank is closed."""

    paid_by: Literal["status", "statement"] = "status"
    """What proves a payment: the bank's status ACSC or ACCC, or the bank statement alone, as some banks never say more than
    ACSP. With ``statement`` every status up to ACSC leaves the payment on its way, and whoever reads the statement reports it
    paid (`products.payouts.reports`)."""
    asks_after_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60

    @field_validator("debtor_name", "remittance_prefix")
    @classmethod
    def _writable(cls, value: str) -> str:
        if not value:
            return value
        try:
            return written(value, NAME_CHARACTERS_MAX)
        except Unwritable:
            raise ValueError("it can't be written in a bank's Latin set") from None

    @field_validator("debtor_account")
    @classmethod
    def _account(cls, value: str) -> str:
        return iban.compact(value) if iban.is_valid(value) else value.strip()

    @field_validator("debtor_bic")
    @classmethod
    def _bic(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return bic.validate(value)
        except ValidationError:
            raise ValueError("it is no BIC (ISO 9362)") from None

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("it is no time zone (IANA)") from None
        return value

    @field_validator("holidays")
    @classmethod
    def _known_calendars(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return business_days(value).countries
        except InvalidInput as error:
            raise ValueError(error.detail) from None

    @model_validator(mode="after")
    def _bank(self) -> Self:
        if (self.debtor_bic is None) == (self.debtor_bank_code is None):
            raise ValueError("the bank is named by debtor_bic or by debtor_bank_code")
        return self

    def clearing_system(self, country: str) -> str | None:
        """The clearing system that a bank code of a country is a member's id of, where it is known."""
        return self.clearing_systems.get(country) or CLEARING_SYSTEMS.get(country)


def is_iban(account: str) -> bool:
    """Whether an account's number is written as an IBAN, with right check digits."""
    return bool(iban.is_valid(account))


def is_bic(code: str) -> bool:
    """Whether a bank's code is a BIC."""
    return bool(re.fullmatch(r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?", code)) and bool(bic.is_valid(code))
