"""The agencies that programmes collect for, and how each wants to be told; one that nobody set up is told in our own columns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.money import AMOUNT_MAX
from products import chart
from products.remittals import layouts

WithoutNumber = Literal["hold", "send"]


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency of a programme. A second person sends more than ``second_person_above`` (minor units).

    ``number_document`` is the type of the document (`products.members.documents`) that holds a member's number there;
    ``without_number``: whether who has none is held back or sent without. ``owed`` is collected and not sent yet.
    """

    programme_id: UUID
    programme: str
    code: str
    fund_id: UUID
    collected_account: UUID
    currency: str
    time_zone: str
    number_document: str
    without_number: WithoutNumber
    second_person_above: int
    columns: Mapping[str, Any]
    answer: Mapping[str, Any]
    owed: int


def agencies(tx: Tx, *, programme: str | None = None, code: str | None = None) -> list[Agency]:
    """The agencies that `tx` sees, by programme and code."""
    rows = tx.execute(
        text(
            "SELECT g.id, g.slug, a.owner, a.fund_id, a.id, g.currency, g.time_zone, s.number_document, s.without_number,"
            " s.second_person_above, s.columns, s.answer, b.credits - b.debits FROM ledger.account a"
            " JOIN products.programme_fund f ON f.fund_id = a.fund_id JOIN products.programme g ON g.id = f.programme_id"
            " JOIN ledger.account_balance b ON b.account_id = a.id"
            " LEFT JOIN products.agency s ON s.programme_id = g.id AND s.code = a.owner"
            " WHERE a.code = :code AND (CAST(:programme AS text) IS NULL OR g.slug = :programme)"
            " AND (CAST(:owner AS text) IS NULL OR a.owner = :owner) ORDER BY g.slug, a.owner"
        ),
        {"code": chart.AGENCY_COLLECTED.name, "programme": programme, "owner": code},
    )
    return [_agency(row) for row in rows]


def _agency(row: Any) -> Agency:  # a row of the statement above
    (
        programme_id,
        programme,
        code,
        fund,
        account,
        currency,
        zone,
        document,
        without,
        above,
        columns,
        answer,
        owed,
    ) = row
    return Agency(
        programme_id,
        programme,
        code,
        fund,
        account,
        currency,
        zone,
        document or default_document(code),
        without or "hold",
        above or 0,
        columns or layouts.DEFAULT_COLUMNS,
        answer or layouts.DEFAULT_ANSWER,
        owed,
    )


def agency_of(tx: Tx, programme: str, code: str) -> Agency:
    """One agency. Raises `NotFound`."""
    for one in agencies(tx, programme=programme, code=code):
        return one
    raise NotFound(unknown(programme, code))


def unknown(programme: str, code: str) -> str:
    """What is said of an agency that is not there, or not for whoever asks."""
    return f"{programme} collects for no agency “{code}”"


def default_document(code: str) -> str:
    """The type of document that holds a member's number at an agency, where nobody said another: ``ssf_nepal_number``."""
    return f"{code.replace('-', '_')}_number"


def set_up(
    tx: Tx,
    agency: Agency,
    *,
    number_document: str | None = None,
    without_number: WithoutNumber | None = None,
    second_person_above: int | None = None,
    columns: Mapping[str, Any] | None = None,
    answer: Mapping[str, Any] | None = None,
    at: datetime,
) -> Agency:
    """Say how an agency is told and answers; what is None stays. What was made before is read as it was made.

    Raises `InvalidInput`, `layouts.InvalidLayout`.
    """
    if second_person_above is not None and not 0 <= second_person_above <= AMOUNT_MAX:
        raise InvalidInput("an amount is between 0 and 2^53−1 minor units", pointer="/second_person_above")
    tx.execute(
        text(
            "INSERT INTO products.agency VALUES (:programme, :code, :document, :without, :above, CAST(:columns AS jsonb),"
            " CAST(:answer AS jsonb), :at) ON CONFLICT (programme_id, code) DO UPDATE"
            " SET number_document = excluded.number_document, without_number = excluded.without_number,"
            " second_person_above = excluded.second_person_above, columns = excluded.columns,"
            " answer = excluded.answer, changed_at = excluded.changed_at"
        ),
        {
            "programme": agency.programme_id,
            "code": agency.code,
            "document": number_document or agency.number_document,
            "without": without_number or agency.without_number,
            "above": agency.second_person_above if second_person_above is None else second_person_above,
            "columns": json.dumps(agency.columns if columns is None else layouts.checked_columns(columns)),
            "answer": json.dumps(agency.answer if answer is None else layouts.checked_answer(answer)),
            "at": at,
        },
    )
    return agency_of(tx, agency.programme, agency.code)
