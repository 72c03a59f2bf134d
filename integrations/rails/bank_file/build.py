"""A batch of payments as ISO 20022 pain.001.001.09 (customer credit transfer initiation).

Everything in a file follows from the batch's id, its instructions and the rail's options, so that building it twice gives the
same bytes. Ids of at most 35 characters, as the standard has them:

* ``MsgId``: the batch's id, 32 hexadecimal digits; ``PmtInfId``: that, a hyphen and the part's number, two digits;
* ``EndToEndId`` and ``InstrId``: the attempt's id, 32 hexadecimal digits;
* ``UETR``: a version 4 UUID by the standard's pattern, taken from the SHA-256 of the attempt's id.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from lxml import etree

from integrations.rails.bank_file.days import execution_day
from integrations.rails.bank_file.options import NAME_CHARACTERS_MAX, BankFileOptions, is_bic, is_iban
from integrations.rails.bank_file.writing import Unwritable, written
from ledger import ids
from ledger.errors import InvalidMoney
from ledger.money import exponent
from products.payouts.rails import Instruction, RailPayee

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
_DEFAULT: Final[dict[str, str]] = {None: NAMESPACE}  # type: ignore[dict-item]  # None is lxml's default namespace, not the stubs'
DIGITS_MAX: Final = 18
"""Of an amount, and of a control sum (the schema's totalDigits)."""
REMITTANCE_CHARACTERS_MAX: Final = 140

_ACCOUNT = re.compile(r"[A-Z0-9]{1,34}")
_BANK_CODE = re.compile(r"[A-Z0-9]{1,35}")
_COUNTRY = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class Line:
    """One payment in a file: its place, and the part (``PmtInf``, by currency) that it is in; both from 1."""

    attempt: UUID
    position: int
    part: int
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class File:
    """A file as it goes to the bank. ``control_sum``: of all amounts in major units, whatever their currencies."""

    message_id: str
    control_sum: Decimal
    execution_on: date
    content: bytes
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _Creditor:
    """A payee as a file names it."""

    name: str
    account: str
    bank_code: str | None
    country: str | None


def refusal(options: BankFileOptions, payee: RailPayee) -> str | None:
    """Why the bank can't be asked to pay this payee, as a stable code; None where it can."""
    found = _creditor(options, payee)
    return found if isinstance(found, str) else None


def refusal_of(options: BankFileOptions, instruction: Instruction) -> str | None:
    """Why the bank can't be asked for this payment, as a stable code; None where it can."""
    try:
        exponent(instruction.currency)
    except InvalidMoney:
        return "currency_unknown"
    if instruction.amount <= 0:
        return "amount_not_payable"
    return refusal(options, instruction.payee)


def major(amount: int, currency: str) -> Decimal:
    """Minor units in major ones, exactly: 1050 KWD → 1.050, 1050 JPY → 1050."""
    return Decimal(amount).scaleb(-exponent(currency))


def made_at(batch: UUID, asked_on: date) -> datetime:
    """When a batch was made: by its UUIDv7, whole seconds, so that its file never depends on when it is written."""
    at = ids.made_at(batch) or datetime(asked_on.year, asked_on.month, asked_on.day, tzinfo=UTC)
    return at.replace(microsecond=0)


def uetr(attempt: UUID) -> UUID:
    """The unique end-to-end transaction reference of an attempt."""
    return UUID(bytes=hashlib.sha256(b"mizan/uetr" + attempt.bytes).digest()[:16], version=4)


def part_id(message_id: str, part: int) -> str:
    """The id of a part (``PmtInfId``)."""
    return f"{message_id}-{part:02}"


def fitting(instructions: Sequence[Instruction]) -> int:
    """How many of the first instructions one control sum can hold."""
    total = Decimal(0)
    for number, one in enumerate(instructions):
        total += major(one.amount, one.currency)
        if len(total.as_tuple().digits) > DIGITS_MAX:
            return number
    return len(instructions)


def build(options: BankFileOptions, batch: UUID, instructions: Sequence[Instruction], asked_on: date) -> File:
    """The file of a batch. None of `instructions` is refused (`refusal_of`), and they fit (`fitting`), one at least."""
    message_id = batch.hex
    at = made_at(batch, asked_on)
    day = execution_day(options, at, asked_on)
    parts: dict[str, list[Instruction]] = {}
    for one in instructions:
        parts.setdefault(one.currency, []).append(one)
    document = etree.Element(_tag("Document"), nsmap=_DEFAULT)
    initiation = _in(document, "CstmrCdtTrfInitn")
    header = _in(initiation, "GrpHdr")
    _in(header, "MsgId", message_id)
    _in(header, "CreDtTm", at.strftime("%Y-%m-%dT%H:%M:%SZ"))
    _in(header, "NbOfTxs", str(len(instructions)))
    control_sum = _sum(instructions)
    _in(header, "CtrlSum", _decimal(control_sum))
    initiating = _in(header, "InitgPty")
    _in(initiating, "Nm", options.debtor_name)
    if options.initiating_id is not None:
        _in(_path(initiating, "Id", "OrgId", "Othr"), "Id", options.initiating_id)
    lines: list[Line] = []
    for number, (currency, among) in enumerate(parts.items(), 1):
        information = _payment_information(initiation, options, part_id(message_id, number), among, day)
        for one in among:
            _transfer(information, options, one)
            lines.append(Line(one.attempt, len(lines) + 1, number, one.amount, currency))
    content = etree.tostring(document, xml_declaration=True, encoding="UTF-8")
    return File(message_id, control_sum, day, content, tuple(lines))


def _payment_information(
    initiation: etree._Element,
    options: BankFileOptions,
    name: str,
    among: Sequence[Instruction],
    day: date,
) -> etree._Element:
    information = _in(initiation, "PmtInf")
    _in(information, "PmtInfId", name)
    _in(information, "PmtMtd", "TRF")
    _in(information, "BtchBookg", "true" if options.batch_booking else "false")
    _in(information, "NbOfTxs", str(len(among)))
    _in(information, "CtrlSum", _decimal(_sum(among)))
    if options.service_level or options.category_purpose:
        kind = _in(information, "PmtTpInf")
        if options.service_level:
            _in(_in(kind, "SvcLvl"), "Cd", options.service_level)
        if options.category_purpose:
            _in(_in(kind, "CtgyPurp"), "Cd", options.category_purpose)
    _in(_in(information, "ReqdExctnDt"), "Dt", day.isoformat())
    _in(_in(information, "Dbtr"), "Nm", options.debtor_name)
    _account(_in(information, "DbtrAcct"), options.debtor_account)
    _bank(
        _in(information, "DbtrAgt"),
        options,
        options.debtor_bic or options.debtor_bank_code or "",
        options.debtor_country,
    )
    _in(information, "ChrgBr", options.charge_bearer)
    return information


def _transfer(information: etree._Element, options: BankFileOptions, one: Instruction) -> None:
    creditor = _creditor(options, one.payee)
    if isinstance(creditor, str):
        raise ValueError(f"an instruction that can't be written: {creditor}")  # noqa: TRY004  `refusal_of` was not asked
    transfer = _in(information, "CdtTrfTxInf")
    ids = _in(transfer, "PmtId")
    _in(ids, "InstrId", one.attempt.hex)
    _in(ids, "EndToEndId", one.attempt.hex)
    _in(ids, "UETR", str(uetr(one.attempt)))
    amount = _in(_in(transfer, "Amt"), "InstdAmt", _decimal(major(one.amount, one.currency)))
    amount.set("Ccy", one.currency)
    if creditor.bank_code is not None:
        _bank(_in(transfer, "CdtrAgt"), options, creditor.bank_code, creditor.country or "")
    _in(_in(transfer, "Cdtr"), "Nm", creditor.name)
    _account(_in(transfer, "CdtrAcct"), creditor.account)
    said = f"{options.remittance_prefix} {one.reference}".strip()
    _in(_in(transfer, "RmtInf"), "Ustrd", written(said, REMITTANCE_CHARACTERS_MAX))


def _creditor(options: BankFileOptions, payee: RailPayee) -> _Creditor | str:
    """The payee as the file names it, or why it can't."""
    if payee.kind != "bank":
        return "payee_kind_not_served"
    try:
        name = written(payee.name, NAME_CHARACTERS_MAX)
    except Unwritable:
        return "name_not_writable"
    given: Mapping[str, str] = payee.destination
    if "iban" in given:
        account, bank_code = _compact(given["iban"]), None
        country = account[:2]
        if not is_iban(account):
            return "account_not_writable"
    else:
        account, bank_code = _compact(given.get("account", "")), _compact(given.get("bank_code", ""))
        country = given.get("country", "").strip().upper()
        if not _ACCOUNT.fullmatch(account):
            return "account_not_writable"
        if not _BANK_CODE.fullmatch(bank_code):
            return "bank_code_not_writable"
        if not _COUNTRY.fullmatch(country):
            return "country_not_writable"
    if options.countries is not None and country not in options.countries:
        return "country_not_served"
    return _Creditor(name, account, bank_code, country)


def _compact(text: str) -> str:
    return re.sub(r"[\s./-]", "", text).upper()


def _account(parent: etree._Element, account: str) -> None:
    if is_iban(account):
        _in(_in(parent, "Id"), "IBAN", account)
    else:
        _in(_path(parent, "Id", "Othr"), "Id", account)


def _bank(parent: etree._Element, options: BankFileOptions, code: str, country: str) -> None:
    institution = _in(parent, "FinInstnId")
    if is_bic(code):
        _in(institution, "BICFI", code)
        return
    member = _in(institution, "ClrSysMmbId")
    system = options.clearing_system(country)
    if system is not None:
        _in(_in(member, "ClrSysId"), "Cd", system)
    _in(member, "MmbId", code)
    _in(_in(institution, "PstlAdr"), "Ctry", country)


def _sum(instructions: Sequence[Instruction]) -> Decimal:
    return sum((major(one.amount, one.currency) for one in instructions), Decimal(0))


def _decimal(value: Decimal) -> str:
    return format(value, "f")


def _tag(local: str) -> str:
    return f"{{{NAMESPACE}}}{local}"


def _in(parent: etree._Element, local: str, text: str | None = None) -> etree._Element:
    made = etree.SubElement(parent, _tag(local))
    if text is not None:
        made.text = text
    return made


def _path(parent: etree._Element, *locals_: str) -> etree._Element:
    for local in locals_:
        parent = _in(parent, local)
    return parent
