"""A bank, as far as its customer knows it: the lines of one account, and the statements that it writes of them, as camt.053 and MT940."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final
from xml.sax.saxutils import escape

from ledger.money import exponent, in_major_units

NAME: Final = "Bank of Kigali"
BIC: Final = "BKIGRWRW"
WIDTH: Final = 65
"""Characters of a line of MT940's field 86."""


@dataclass(frozen=True, slots=True)
class BankLine:
    """A movement as the bank shows it. ``amount``: minor units, positive when money came in.

    ``is_`` is what only the demo knows, and the bank doesn't: the days that a partner pays for, or the names in the books of what it
    truly is; or, where nothing in the books is its other side, the type of break that has to be found.
    """

    on: date
    amount: int
    text: str
    is_: frozenset[str] | str
    end_to_end: str | None = None
    name: str | None = None
    account: str | None = None
    charge: bool = False
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's days: what was there before, and what moved."""

    account: str
    currency: str
    number: int
    from_on: date
    to_on: date
    opening: int
    lines: tuple[BankLine, ...]

    @property
    def closing(self) -> int:
        """What is there at the end."""
        return self.opening + sum(line.amount for line in self.lines)


def numbered(lines: Iterable[BankLine], prefix: str) -> tuple[BankLine, ...]:
    """The lines by day, each with a reference of the bank's own."""
    return tuple(
        replace(one, reference=f"{prefix}{place:05}")
        for place, one in enumerate(sorted(lines, key=lambda one: one.on), 1)
    )


def camt053(one: Statement, made_at: datetime) -> bytes:
    """The statement as camt.053, version 08 (ISO 20022, Bank to Customer Statement)."""
    entries = "".join(_entry(line, one.currency) for line in one.lines)
    at = made_at.isoformat(timespec="seconds")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>{BIC}-{one.number}</MsgId><CreDtTm>{at}</CreDtTm></GrpHdr>"
        f"<Stmt><Id>{one.account}-{one.number}</Id><ElctrncSeqNb>{one.number}</ElctrncSeqNb><CreDtTm>{at}</CreDtTm>"
        f"<FrToDt><FrDtTm>{one.from_on}T00:00:00</FrDtTm><ToDtTm>{one.to_on}T23:59:59</ToDtTm></FrToDt>"
        f"<Acct><Id><IBAN>{one.account}</IBAN></Id><Ccy>{one.currency}</Ccy>"
        f"<Svcr><FinInstnId><BICFI>{BIC}</BICFI></FinInstnId></Svcr></Acct>"
        f"{_balance('OPBD', one.opening, one.currency, one.from_on)}"
        f"{_balance('CLBD', one.closing, one.currency, one.to_on)}{entries}"
        "</Stmt></BkToCstmrStmt></Document>\n"
    ).encode()


def mt940(one: Statement) -> bytes:
    """The statement as MT940 (SWIFT, Customer Statement Message)."""
    written = [
        f":20:STATEMENT{one.number:05}",
        f":25:{one.account}",
        f":28C:{one.number}/1",
        # an opening balance bears the date of the closing balance before it
        f":60F:{_swift_balance(one.opening, one.currency, one.from_on - timedelta(days=1))}",
    ]
    for line in one.lines:
        kind = "NCHG" if line.charge else "NTRF"
        written.append(
            f":61:{line.on:%y%m%d%m%d}{_side(line.amount, 'C', 'D')}{_swift_amount(line.amount, one.currency)}"
            f"{kind}NONREF//{line.reference}"
        )
        told = [("EREF", line.end_to_end), ("NAME", line.name), ("IBAN", line.account), ("REMI", line.text)]
        written.append(_folded(":86:" + "".join(f"/{code}/{value}" for code, value in told if value)))
    written.append(f":62F:{_swift_balance(one.closing, one.currency, one.to_on)}")
    header = f"{{1:F01{BIC}AXXX0000000000}}{{2:I940{BIC}XXXXN}}{{4:"
    return ("\r\n".join([header, *written, "-}"]) + "\r\n").encode("ascii")


def _entry(line: BankLine, currency: str) -> str:
    credit = line.amount >= 0
    code = "<Fmly><Cd>RCDT</Cd><SubFmlyCd>XBCT</SubFmlyCd></Fmly>"
    if line.charge:
        code = "<Fmly><Cd>MDOP</Cd><SubFmlyCd>CHRG</SubFmlyCd></Fmly>"
    elif not credit:
        code = "<Fmly><Cd>ICDT</Cd><SubFmlyCd>DMCT</SubFmlyCd></Fmly>"
    named = f"<EndToEndId>{escape(line.end_to_end)}</EndToEndId>" if line.end_to_end else ""
    party, account = ("Dbtr", "DbtrAcct") if credit else ("Cdtr", "CdtrAcct")
    other = f"<{party}><Pty><Nm>{escape(line.name)}</Nm></Pty></{party}>" if line.name else ""
    if line.account:
        other += f"<{account}><Id><IBAN>{line.account}</IBAN></Id></{account}>"
    return (
        f"<Ntry>{_amount(line.amount, currency)}<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>{line.on}</Dt></BookgDt>"
        f"<ValDt><Dt>{line.on}</Dt></ValDt><AcctSvcrRef>{line.reference}</AcctSvcrRef>"
        f"<BkTxCd><Domn><Cd>PMNT</Cd>{code}</Domn></BkTxCd><NtryDtls><TxDtls>"
        f"<Refs><AcctSvcrRef>{line.reference}</AcctSvcrRef>{named}</Refs>"
        f"{_amount(line.amount, currency)}"
        + (f"<RltdPties>{other}</RltdPties>" if other else "")
        + f"<RmtInf><Ustrd>{escape(line.text)}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>"
    )


def _balance(code: str, amount: int, currency: str, on: date) -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount(amount, currency)}"
        f"<Dt><Dt>{on}</Dt></Dt></Bal>"
    )


def _amount(amount: int, currency: str) -> str:
    return (
        f'<Amt Ccy="{currency}">{in_major_units(abs(amount), exponent(currency))}</Amt>'
        f"<CdtDbtInd>{_side(amount, 'CRDT', 'DBIT')}</CdtDbtInd>"
    )


def _side(amount: int, credit: str, debit: str) -> str:
    return credit if amount >= 0 else debit


def _swift_balance(amount: int, currency: str, on: date) -> str:
    return f"{_side(amount, 'C', 'D')}{on:%y%m%d}{currency}{_swift_amount(amount, currency)}"


def _swift_amount(amount: int, currency: str) -> str:
    major = in_major_units(abs(amount), exponent(currency)).replace(".", ",")
    return major if "," in major else f"{major},"


def _folded(field: str) -> str:
    """A field's text in lines of at most `WIDTH` characters."""
    pieces: Sequence[str] = [field[at : at + WIDTH] for at in range(0, len(field), WIDTH)]
    return "\r\n".join(pieces)
