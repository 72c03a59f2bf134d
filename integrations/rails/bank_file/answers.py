"""What banks answer: pain.002 (customer payment status report, versions 03 to 14) and returns in camt.054, read.

Elements are found by their local names, as the versions differ in their namespaces and not in what is read here. Free text
(``AddtlInf``) is never kept: banks write names into it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal
from zoneinfo import ZoneInfo

from integrations import strict_xml
from integrations.strict_xml import Element, children, name, text_at
from ledger.errors import InvalidInput, InvalidMoney
from ledger.money import AMOUNT_MAX, exponent
from products.payouts.rails import FailureReason

Meaning = Literal["accepted", "in_transit", "paid", "refused"]

MEANINGS: Final[dict[str, Meaning]] = {
    "RCVD": "accepted",
    "ACTC": "accepted",
    "ACCP": "accepted",
    "ACFC": "accepted",
    "ACWC": "accepted",
    "PATC": "accepted",
    "PDNG": "accepted",
    "ACSP": "in_transit",
    "ACWP": "in_transit",
    "BLCK": "in_transit",
    "ACSC": "paid",
    "ACCC": "paid",
    "RJCT": "refused",
    "CANC": "refused",
}
"""What a status (ISO 20022 external code set, payment transaction status) says of one payment. Any other says nothing that we
know how to read: the payment stays as it is, and the answer's report names the status."""
RETURNED: Final = "RTRN"
"""Our own word beside the bank's statuses: an entry brought the payment back."""
ACCEPTING: Final = frozenset(status for status, meaning in MEANINGS.items() if meaning != "refused") - {
    "RCVD",
    "PDNG",
}
"""Statuses of a whole group with which no payment of it can be refused: then the group is ``PART``."""

REASONS: Final[dict[str, FailureReason]] = {
    "AC01": "payee_unknown",
    "AC02": "other",
    "AC03": "payee_unknown",
    "AC04": "payee_closed",
    "AC06": "payee_closed",
    "AC07": "payee_closed",
    "AC15": "payee_unknown",
    "AC16": "payee_unknown",
    "AG01": "refused",
    "AG03": "refused",
    "AM02": "rail_limit",
    "AM04": "insufficient_float",
    "AM05": "refused",
    "AM06": "rail_limit",
    "AM07": "refused",
    "AM14": "rail_limit",
    "AM21": "rail_limit",
    "BE01": "name_mismatch",
    "BE05": "refused",
    "BE06": "payee_unknown",
    "BE17": "name_mismatch",
    "CNOR": "payee_unknown",
    "CUST": "refused",
    "DUPL": "refused",
    "FOCR": "refused",
    "MD07": "payee_closed",
    "MS02": "refused",
    "MS03": "refused",
    "RC01": "payee_unknown",
    "RC03": "payee_unknown",
    "RC04": "payee_unknown",
    "RC10": "payee_unknown",
    "RR01": "refused",
    "RR02": "refused",
    "RR03": "refused",
    "RR04": "refused",
    "SL01": "refused",
    "SL02": "refused",
    "SL03": "payee_limit",
    "TM01": "expired",
    "AB05": "expired",
    "AB06": "expired",
}
"""Why, by the bank's reason code (ISO 20022 external code set, status and return reasons); any other, NARR too, is `other`."""

ID_CHARACTERS_MAX: Final = 35
CODE_CHARACTERS_MAX: Final = 35
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{0,17})?", re.ASCII)


class UnreadableAnswer(InvalidInput):
    """Not a file that a bank answers with, or one that contradicts itself; nothing of it is kept."""

    code = "payment_answer_unreadable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status with the bank's reason code."""

    status: str
    code: str | None


@dataclass(frozen=True, slots=True)
class OnTransaction:
    """What is said of one payment, named by its end-to-end id. ``amount``: minor units, where it is told."""

    end_to_end: str
    part: str | None
    verdict: Verdict
    amount: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What is said of a message or of a part of it, with the totals that the bank repeats."""

    id: str
    verdict: Verdict | None
    payments: int | None
    control_sum: Decimal | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as read. `message` is None for returns, which name payments alone."""

    kind: Literal["status", "returns"]
    said_at: datetime
    message: Group | None
    parts: tuple[Group, ...]
    transactions: tuple[OnTransaction, ...]


def reason_of(code: str | None) -> FailureReason:
    """The reason behind a bank's code, in the one vocabulary of all rails."""
    return REASONS.get(code or "", "other")


def read(content: bytes, time_zone: str) -> Answer:
    """The answer in a file; times without a zone are `time_zone`'s. Raises `UnreadableAnswer`."""
    try:
        root = strict_xml.loads(content)
    except strict_xml.NotStrictXml as error:
        raise UnreadableAnswer(f"The file can't be read as XML: {error}.") from None
    zone = ZoneInfo(time_zone)
    report = strict_xml.child(root, "CstmrPmtStsRpt")
    if report is not None:
        return _status_report(report, zone)
    notification = strict_xml.child(root, "BkToCstmrDbtCdtNtfctn")
    if notification is not None:
        return _returns(notification, zone)
    raise UnreadableAnswer("The file is neither a pain.002 nor a camt.054.")


def _status_report(report: Element, zone: ZoneInfo) -> Answer:
    originals = list(children(report, "OrgnlGrpInfAndSts"))
    if len(originals) != 1:
        raise UnreadableAnswer("The file answers to no message, or to more than one.")
    message = _group(originals[0], "OrgnlMsgId", "GrpSts")
    parts: list[Group] = []
    transactions: list[OnTransaction] = []
    for element in children(report, "OrgnlPmtInfAndSts"):
        part = _group(element, "OrgnlPmtInfId", "PmtInfSts")
        parts.append(part)
        transactions += _transactions(element, part.id)
    # versions up to 02 have them at the top
    transactions += _transactions(report, None)
    _require_consistent(message, parts, transactions)
    return Answer("status", _said_at(report, zone), message, tuple(parts), tuple(transactions))


def _group(element: Element, id_: str, status: str) -> Group:
    said = text_at(element, status)
    number = text_at(element, "OrgnlNbOfTxs")
    total = text_at(element, "OrgnlCtrlSum")
    return Group(
        _id(element, id_),
        Verdict(_short(said), _code(element)) if said is not None else None,
        int(_decimal(number)) if number is not None else None,
        _decimal(total) if total is not None else None,
    )


def _transactions(element: Element, part: str | None) -> Iterator[OnTransaction]:
    for one in children(element, "TxInfAndSts"):
        status = text_at(one, "TxSts")
        if status is None:
            raise UnreadableAnswer("A payment has no status.")
        amount, currency = _amount(strict_xml.child(one, "OrgnlTxRef", "Amt", "InstdAmt"))
        yield OnTransaction(
            _id(one, "OrgnlEndToEndId"), part, Verdict(_short(status), _code(one)), amount, currency
        )


def _require_consistent(message: Group, parts: list[Group], transactions: list[OnTransaction]) -> None:
    """A group that is refused has no payment that is not, and one that is accepted none that is refused."""
    by_part = {part.id: part for part in parts}
    if len(by_part) != len(parts):
        raise UnreadableAnswer("A part of the message is answered twice.")
    said: list[tuple[Group, Verdict]] = [(message, part.verdict) for part in parts if part.verdict]
    for one in transactions:
        said.append((message, one.verdict))
        if one.part is not None:
            said.append((by_part[one.part], one.verdict))
    for group, verdict in said:
        whole = group.verdict.status if group.verdict else None
        if whole == "RJCT" and verdict.status != "RJCT":
            raise UnreadableAnswer("A group is rejected, and a payment in it is not.")
        if whole in ACCEPTING and MEANINGS.get(verdict.status) == "refused":
            raise UnreadableAnswer("A group is accepted as a whole, and a payment in it is refused.")


def _returns(notification: Element, zone: ZoneInfo) -> Answer:
    """Entries of a camt.054 that bring money back: credits with return information, named by end-to-end id."""
    found: list[OnTransaction] = []
    for entry in children(notification, "Ntfctn", "Ntry"):
        credited = text_at(entry, "CdtDbtInd")
        for details in children(entry, "NtryDtls", "TxDtls"):
            information = strict_xml.child(details, "RtrInf")
            if information is None or (text_at(details, "CdtDbtInd") or credited) != "CRDT":
                continue
            amount, currency = _amount(
                strict_xml.first(
                    strict_xml.child(details, "Amt"),
                    strict_xml.child(details, "AmtDtls", "TxAmt", "Amt"),
                    strict_xml.child(details, "AmtDtls", "InstdAmt", "Amt"),
                )
            )
            code = text_at(information, "Rsn", "Cd") or text_at(information, "Rsn", "Prtry")
            # an account's notification has returns of others' payments too, named otherwise or not at all
            end_to_end = text_at(details, "Refs", "EndToEndId") or ""
            verdict = Verdict(RETURNED, _short(code) if code is not None else None)
            found.append(OnTransaction(end_to_end, None, verdict, amount, currency))
    if not found:
        raise UnreadableAnswer("The camt.054 has no entry that returns a payment.")
    return Answer("returns", _said_at(notification, zone), None, (), tuple(found))


def _said_at(message: Element, zone: ZoneInfo) -> datetime:
    told = text_at(message, "GrpHdr", "CreDtTm")
    try:
        at = datetime.fromisoformat(told or "")
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableAnswer("The file doesn't say when it was made (GrpHdr/CreDtTm).") from None


def _id(element: Element, local: str) -> str:
    found = text_at(element, local)
    if found is None or len(found) > ID_CHARACTERS_MAX:
        raise UnreadableAnswer(f"{local} is absent or too long in {name(element)}.")
    return found


def _code(element: Element) -> str | None:
    code = text_at(element, "StsRsnInf", "Rsn", "Cd") or text_at(element, "StsRsnInf", "Rsn", "Prtry")
    return _short(code) if code is not None else None


def _short(code: str) -> str:
    return code[:CODE_CHARACTERS_MAX]


def _amount(element: Element | None) -> tuple[int | None, str | None]:
    """An amount in minor units, exactly."""
    if element is None:
        return None, None
    currency = element.get("Ccy") or ""
    try:
        minor = _decimal((element.text or "").strip()).scaleb(exponent(currency))
    except InvalidMoney:
        raise UnreadableAnswer("An amount is in no currency that there is.") from None
    if minor != minor.to_integral_value() or minor > AMOUNT_MAX:
        raise UnreadableAnswer("An amount has more decimals than its currency, or is too large.")
    return int(minor), currency


def _decimal(text: str) -> Decimal:
    if not _DECIMAL.fullmatch(text):
        raise UnreadableAnswer("A number can't be read.")
    return Decimal(text)
