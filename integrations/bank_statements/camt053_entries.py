"""From an entry of camt.053 and its details to lines.

The entry's amount is what moved the balance. Details in the account's currency become lines of their own, and add up to it or the
statement is refused; details that say no amount in that currency make one line of the entry, with all their references.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final

from integrations.bank_statements import canonical
from integrations.bank_statements.camt053_records import Record, day_of, direction, magnitude, signed
from integrations.bank_statements.canonical import InvalidStatement, shown
from ledger.reconciliation.statements import Line

Where = Callable[[int | None], str]

_AMOUNTS: Final = ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/CntrValAmt/Amt", "AmtDtls/AnncdPstngAmt/Amt")
"""Where a detail says what it is worth. Not ``InstdAmt``: what was ordered, before charges and exchange."""
_REFERENCES: Final = (
    *(
        f"Refs/{name}"
        for name in (
            *(
                "InstrId",
                "PmtInfId",
                "UETR",
                "TxId",
                "MndtId",
                "ChqNb",
                "ClrSysRef",
                "AcctOwnrTxId",
                "AcctSvcrTxId",
            ),
            *("MktInfrstrctrTxId", "PrcgId", "MsgId", "Prtry/Ref", "Prtry/Id"),
        )
    ),
    *(f"RmtInf/Strd/{path}" for path in ("CdtrRefInf/Ref", "RfrdDocInf/Nb", "RfrdDocInf/RfrdDocNb")),
)
_ENTRY_REFERENCES: Final = ("NtryRef", "NtryDtls/Btch/MsgId", "NtryDtls/Btch/PmtInfId")
_TEXTS: Final = ("RmtInf/Ustrd", "RmtInf/Strd/AddtlRmtInf", "AddtlTxInf", "RtrInf/Rsn/Cd", "RtrInf/AddtlInf")
_DOMAIN: Final = ("BkTxCd/Domn/Cd", "BkTxCd/Domn/Fmly/Cd", "BkTxCd/Domn/Fmly/SubFmlyCd")
_NAMES: Final = {
    role: (
        *(f"RltdPties/{role}/{path}" for path in ("Nm", "Pty/Nm", "Agt/FinInstnId/Nm")),
        *(f"RltdPties/Ultmt{role}/{path}" for path in ("Nm", "Pty/Nm")),
    )
    for role in ("Dbtr", "Cdtr")
}
_ACCOUNTS: Final = {
    role: tuple(f"RltdPties/{role}Acct/{path}" for path in ("Id/IBAN", "Id/Othr/Id", "Id/BBAN", "Prxy/Id"))
    for role in ("Dbtr", "Cdtr")
}
_CHARGES: Final = ("Chrgs/TtlChrgsAndTaxAmt", "Chrgs/Rcrd/Amt", "Chrgs/Amt")
DETAIL_PATHS: Final = frozenset(
    {
        *("CdtDbtInd", "Refs/EndToEndId", "Refs/AcctSvcrRef", "BkTxCd/Prtry/Cd"),
        *(*_AMOUNTS, *_CHARGES, *_REFERENCES, *_TEXTS, *_DOMAIN),
        *(path for role in ("Dbtr", "Cdtr") for path in (*_NAMES[role], *_ACCOUNTS[role])),
    }
)
"""All that is read of a detail."""
_TRUE: Final = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Record
    number: int
    amount: int
    currency: str
    reversal: bool
    booked_on: date
    value_on: date
    account: str | None


def lines_of(
    record: Record, details: list[Record], *, where: Where, number: int, account: str | None
) -> tuple[list[Line], str]:
    """The lines of an entry, and its currency; no lines where it is not booked, or of no money. Raises `InvalidStatement`."""
    amount, currency = signed(record, where(None))
    if not is_booked(record) or amount == 0:
        return [], currency
    reversal = is_reversal(record)
    booked_on = day_of(record.first("BookgDt/Dt", "BookgDt/DtTm"))
    value_on = day_of(record.first("ValDt/Dt", "ValDt/DtTm"))
    if booked_on is None:
        booked_on = value_on
    if booked_on is None:
        raise InvalidStatement("it has neither a booking date nor a value date", where=where(None))
    entry = _Entry(record, number, amount, currency, reversal, booked_on, value_on or booked_on, account)
    if not details:
        return [_line(entry, 0, amount, [])], currency
    parts = _parts(entry, details, where)
    if parts is None:
        return [_line(entry, 0, amount, details)], currency
    return [
        _line(entry, index, part, [detail])
        for index, (detail, part) in enumerate(zip(details, parts, strict=True), 1)
        if part != 0
    ], currency


def is_reversal(record: Record) -> bool:
    """Whether the entry takes another one back."""
    return (record.first("RvslInd") or "").lower() in _TRUE


def is_booked(record: Record) -> bool:
    """Pending entries and information move no booked balance. A status that is missing leaves a statement of what was booked."""
    status = record.first("Sts", "Sts/Cd", "Sts/Prtry")
    return status is None or status.upper() == "BOOK"


def _parts(entry: _Entry, details: list[Record], where: Where) -> list[int] | None:
    """What each detail is worth, signed; None where not all say so in the entry's currency. Raises `InvalidStatement`."""
    sign = 1 if entry.amount > 0 else -1
    amounts: list[int] = []
    charges: list[int] = []
    for index, detail in enumerate(details, 1):
        worth = _worth(detail, entry.currency, where(index))
        if worth is None:
            return [entry.amount] if len(details) == 1 else None
        side = direction(detail, where(index)) if detail.first("CdtDbtInd") else sign
        amounts.append(side * worth)
        charges.append(_charges(detail, entry.currency, where(index)))
    # Some banks show details before their charges, and book them after.
    net = [amount - charge for amount, charge in zip(amounts, charges, strict=True)]
    for parts in (amounts, net):
        if sum(parts) == entry.amount:
            return parts
        if entry.reversal and sum(parts) == -entry.amount:
            return [
                -part for part in parts
            ]  # they have the indicators of the payments that the entry takes back
    difference = entry.amount - sum(amounts)
    if -difference == _charges(entry.record, entry.currency, where(None)):
        # Charges of the entry as a whole: nobody says which of several details bears them.
        return [entry.amount] if len(details) == 1 else None
    raise InvalidStatement(
        f"its details add up to {shown(sum(amounts), entry.currency)} and the entry is {shown(entry.amount, entry.currency)}: "
        f"a difference of {shown(difference, entry.currency)}",
        where=where(None),
    )


def _worth(detail: Record, currency: str, where: str) -> int | None:
    """What a detail is worth in the entry's currency; None where it doesn't say."""
    for path in _AMOUNTS:
        found = detail.amount(path)
        if found is not None and found[1] == currency:
            return magnitude(found[0], currency, where)
    return None


def _charges(record: Record, currency: str, where: str) -> int:
    """What was taken off an entry or a detail for charges, in the entry's currency."""
    for path in _CHARGES:
        written, currencies = list(record.all(path)), set(record.all(path + "@"))
        if written:
            return sum(magnitude(one, currency, where) for one in written) if currencies == {currency} else 0
    return 0


def _line(entry: _Entry, detail: int, amount: int, details: list[Record]) -> Line:
    record = entry.record
    own = details[0] if len(details) == 1 else None
    end_to_end = canonical.reference_of(own.first("Refs/EndToEndId")) if own else None
    servicer = canonical.reference_of(record.first("AcctSvcrRef"))
    reference = (canonical.reference_of(own.first("Refs/AcctSvcrRef")) if own else None) or servicer
    references = [one for each in details for one in each.all(*_REFERENCES)]
    if own is None:
        references += [one for each in details for one in each.all("Refs/EndToEndId", "Refs/AcctSvcrRef")]
    references += record.all(*_ENTRY_REFERENCES)
    name, number = _counterparty(entry, own) if own else (None, None)
    return Line(
        entry=entry.number,
        detail=detail,
        booked_on=entry.booked_on,
        value_on=entry.value_on,
        amount=-amount if entry.reversal else amount,
        currency=entry.currency,
        kind=(_kind(own) if own else None) or _kind(record),
        reversal=entry.reversal,
        end_to_end=end_to_end,
        reference=reference,
        references=canonical.references_of([*references, servicer], besides=(end_to_end, reference)),
        counterparty=name,
        counterparty_account=number,
        text=canonical.text_of(
            *(text for each in details for text in each.all(*_TEXTS)), record.first("AddtlNtryInf")
        ),
    )


def _kind(record: Record) -> str | None:
    """The bank's code of what happened: domain, family and sub-family, or its own."""
    domain = [part for path in _DOMAIN if (part := record.first(path))]
    found = "/".join(domain) or record.first("BkTxCd/Prtry/Cd")
    return canonical.text_of(found)[:70] or None


def _counterparty(entry: _Entry, detail: Record) -> tuple[str | None, str | None]:
    """The other side's name and account: who paid of a credit, who was paid of a debit; never the account's own holder.

    A reversal names the parties of the payment that it takes back, in their own roles.
    """
    roles = ("Dbtr", "Cdtr") if entry.amount > 0 else ("Cdtr", "Dbtr")
    for role in roles if entry.reversal else roles[:1]:
        name = detail.first(*_NAMES[role])
        number = canonical.account_of(detail.first(*_ACCOUNTS[role]))
        if (name or number) and (number is None or number != entry.account):
            return canonical.text_of(name)[:140] or None, number
    return None, None
