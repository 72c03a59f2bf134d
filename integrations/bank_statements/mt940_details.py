"""Field 86 of MT940: what an entry is about, in the dialects of banks.

``166?00…?20EREF+…`` (sub-fields, with another mark than ``?`` at some banks), ``/EREF/…/REMI/…`` (SWIFT's codes), or free text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import mt940

from integrations.bank_statements import canonical

_SUBFIELDS = re.compile(
    r"(?P<code>[0-9]{3})(?P<mark>[?~<^!>|@])[0-9]{2}|(?P<bare>[?~<^])[0-9]{2}[\s\S]*(?P=bare)[0-9]{2}"
)
"""With the business code before the first one, or at least two of them without."""
_CODES: Final = (
    *("EREF", "KREF", "PREF", "IREF", "MREF", "MARF", "CREF", "CSID", "SREF", "TREF", "REF", "ID"),
    *("REMI", "SVWZ", "PURP", "TRTP", "TRCD", "RTRN", "RCOD", "ISDT", "BUSP", "ADDR", "UDTR", "UCRD", "ULTC", "ULTD", "ULTB"),
    *("NAME", "IBAN", "BIC", "CNTP", "ORDP", "BENM", "OCMT", "CHGS", "EXCH", "PHON"),
)  # fmt: skip
_SLASHES = re.compile(r"/(" + "|".join(_CODES) + r")/")
LINE_FULL: Final = 65
"""Characters of a whole line: what goes on in the next one is not a new word."""

_DETAILS: Final = mt940.tags.TransactionDetails()
_OPTIONS: Final = mt940.models.Transactions(options=mt940.Options.all())


@dataclass(frozen=True, slots=True)
class Details:
    """What a field 86 says, as far as it has a form that is known; else all of it is text."""

    end_to_end: str | None = None
    references: tuple[str, ...] = ()
    counterparty: str | None = None
    counterparty_account: str | None = None
    text: str = ""


def details_of(written: str) -> Details:
    """What stands in a field 86, its lines joined by line feeds."""
    text = written.strip()
    found = _SUBFIELDS.match(text)
    if found is not None:
        return _of_subfields(found, text)
    if _SLASHES.match(text):
        return _of_slashes(text)
    return Details(text=canonical.text_of(_joined(text, " ")))


def _of_subfields(found: "re.Match[str]", text: str) -> Details:
    mark = found["mark"] or found["bare"]
    plain = text if mark == "?" else text.replace("?", " ").replace(mark, "?")
    value = plain if found["code"] else f"000{plain}"
    given = {"transaction_details": value}
    told: Mapping[str, str | None] = mt940.processors.transaction_details_post_processor(
        _OPTIONS, _DETAILS, given, dict(given)
    )
    return Details(
        end_to_end=canonical.reference_of(told.get("end_to_end_reference")),
        references=canonical.references_of(
            told.get(key)
            for key in ("customer_reference", "additional_position_reference", "debitor_identifier")
        ),
        counterparty=canonical.text_of(told.get("applicant_name"))[:140] or None,
        counterparty_account=canonical.account_of(
            told.get("applicant_iban") or told.get("gvc_applicant_iban")
        ),
        text=canonical.text_of(*(told.get(key) for key in ("posting_text", "purpose", "additional_purpose"))),
    )


def _of_slashes(text: str) -> Details:
    pieces = _SLASHES.split(_joined(text, "\n"))
    told: dict[str, str] = {}
    for code, value in zip(pieces[1::2], pieces[2::2], strict=True):
        told.setdefault(code, value.strip().strip("/"))
    party = told.get("CNTP", "").split("/")
    name = told.get("NAME") or told.get("ORDP") or told.get("BENM") or (party[2] if len(party) > 2 else None)
    remittance = re.sub(r"^(?:USTD|STRD)(?:/{1,2}|$)(?:CUR/)?", "", told.get("REMI", ""))
    return Details(
        end_to_end=canonical.reference_of(told.get("EREF")),
        references=canonical.references_of(
            told.get(code)
            for code in _CODES
            if code.endswith(("REF", "MARF", "ID")) and code not in ("EREF", "CSID")
        ),
        counterparty=canonical.text_of(name)[:140] or None,
        counterparty_account=canonical.account_of(told.get("IBAN") or party[0]),
        text=canonical.text_of(
            remittance, *(told.get(code) for code in ("SVWZ", "PURP", "RTRN", "RCOD", "TRTP")), pieces[0]
        ),
    )


def _joined(text: str, between: str) -> str:
    """Lines put together: without anything between where a line was full."""
    joined = ""
    for line in text.split("\n"):
        joined += line if line.endswith("\n") else line + ("" if len(line) >= LINE_FULL else between)
    return joined.strip()
