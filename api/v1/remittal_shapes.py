"""The shapes of remittals and agencies in the API."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from api.v1.schemas import Day, In, Instant, MoneyOut, Out, Slug, Text
from ledger.ids import public_id
from ledger.money import AMOUNT_MAX
from products.remittals.agencies import Agency
from products.remittals.making import Made
from products.remittals.queries import PREFIX, Line, Remittal

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
HELD_SHOWN_MAX: Final = 1_000
LINES_MAX: Final = 2_000


class AgencySettings(In):
    """How an agency is told and answers; what is left out stays as it is."""

    number_document: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,62}$",
            description="the type of the document that holds a member's number there",
            examples=["ssf_number"],
        ),
    ] = None
    without_number: Literal["hold", "send"] | None = None
    second_person_above: Annotated[
        int | None,
        Field(ge=0, le=AMOUNT_MAX, description="minor units; a second manager sends more than this"),
    ] = None
    columns: Annotated[
        dict[str, Any] | None,
        Field(
            description="the schedule's columns: header, and a field or a constant value",
            examples=[
                {"columns": [{"header": "Line", "field": "line"}, {"header": "Rs", "field": "amount"}]}
            ],
        ),
    ] = None
    answer: Annotated[
        dict[str, Any] | None,
        Field(
            description="where an answer's file says what",
            examples=[{"line": "Line", "outcome": "Status", "outcomes": {"OK": "accepted"}}],
        ),
    ] = None


class AgencyOut(Out):
    """An agency that a programme collects for; `owed` is collected and not sent yet."""

    programme: str
    agency: str
    owed: MoneyOut
    number_document: str
    without_number: Literal["hold", "send"]
    second_person_above: MoneyOut
    columns: dict[str, Any]
    answer: dict[str, Any]


class AgenciesOut(Out):
    """All agencies that the caller may see."""

    data: list[AgencyOut]


class RemittalIn(In):
    """What is sent: all that was paid in for an agency up to and including a day."""

    programme: Annotated[Slug, Field(examples=["ssf-nepal"])]
    agency: Annotated[Slug, Field(examples=["ssf-nepal"])]
    through: Annotated[Day, Field(description="a day of the programme's time zone, not to come")]
    without_number: Annotated[
        Literal["hold", "send"] | None, Field(description="as the agency is set up, when left out")
    ] = None


class RemittalOut(Out):
    """A remittal. `answered` lines: `accepted` is the agency's, `returned` the members', `claimed` asked for beyond it."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    programme: str
    agency: str
    number: int
    through: Day
    lines: int
    amount: MoneyOut
    sha256: Annotated[Digest, Field(description="of the schedule's file")]
    state: Literal["made", "sent", "cleared", "withdrawn"]
    made_at: Instant
    bank_reference: str | None
    sent_on: Day | None
    cleared_on: Day | None
    answered: int
    accepted: MoneyOut
    returned: MoneyOut
    claimed: MoneyOut


class HeldOut(Out):
    """A line that stays back, as the agency's number of the member is not known."""

    enrolment: str
    applies_to: Day
    amount: MoneyOut


class MadeOut(Out):
    """A new remittal, and what stays back: how many lines, what they come to, and the first thousand of them."""

    remittal: RemittalOut
    held_lines: int
    held_amount: MoneyOut
    held: list[HeldOut]


class RemittalLineOut(Out):
    """One line. Numbers and pay are in the schedule alone."""

    position: int
    enrolment: str
    product: str
    applies_to: Annotated[Day, Field(description="the first day of the month")]
    paid_on: Day
    rate: str | None
    amount: MoneyOut
    has_number: bool
    state: Literal["sent", "accepted", "rejected", "corrected"]
    accepted: MoneyOut | None
    claimed: MoneyOut
    reason: str | None


class PaymentIn(In):
    """The bank payment by which the money leaves."""

    reference: Annotated[Text, Field(examples=["PAY-2026-117"])]
    on: Day


class RemittalConfirmationIn(In):
    """When the bank paid it."""

    on: Day


class AnsweredIn(In):
    """What the agency says of one line. `accepted` in minor units: of a correction, or left out."""

    line: Annotated[int, Field(ge=1, le=10**9)]
    outcome: Literal["accepted", "rejected", "corrected"]
    accepted: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX)] = None
    reason: Text | None = None
    number: Annotated[
        str | None, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$", description="a corrected number")
    ] = None


class AnswerIn(In):
    """An agency's answer, in part or whole; with totals, they must be those of the lines."""

    lines: Annotated[list[AnsweredIn], Field(min_length=1, max_length=LINES_MAX)]
    total_lines: Annotated[int | None, Field(ge=0, le=10**9)] = None
    total_accepted: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX)] = None


class AnswerOut(Out):
    """What an answer did. `returned` is the members' again, unapplied."""

    lines: int
    accepted: MoneyOut
    returned: MoneyOut
    claimed: MoneyOut
    duplicate: Annotated[bool, Field(description="it was taken before: nothing changed")]


def agency_out(one: Agency) -> AgencyOut:
    """An agency in the API's shape."""
    return AgencyOut(
        programme=one.programme,
        agency=one.code,
        owed=MoneyOut.of(one.owed, one.currency),
        number_document=one.number_document,
        without_number=one.without_number,
        second_person_above=MoneyOut.of(one.second_person_above, one.currency),
        columns=dict(one.columns),
        answer=dict(one.answer),
    )


def made_out(made: Made) -> MadeOut:
    """A new remittal, and what stays back, in the API's shape."""
    currency = made.remittal.currency
    return MadeOut(
        remittal=remittal_out(made.remittal),
        held_lines=len(made.held),
        held_amount=MoneyOut.of(sum(one.amount for one in made.held), currency),
        held=[
            HeldOut(
                enrolment=public_id("enr", one.enrolment_id),
                applies_to=one.applies_to,
                amount=MoneyOut.of(one.amount, currency),
            )
            for one in made.held[:HELD_SHOWN_MAX]
        ],
    )


def remittal_out(one: Remittal) -> RemittalOut:
    """A remittal in the API's shape."""
    return RemittalOut(
        id=one.public_id,
        programme=one.programme,
        agency=one.agency,
        number=one.number,
        through=one.through,
        lines=one.lines,
        amount=MoneyOut.of(one.amount, one.currency),
        sha256=one.digest.hex(),
        state=one.state,
        made_at=one.made_at,
        bank_reference=one.bank_reference,
        sent_on=one.sent_on,
        cleared_on=one.cleared_on,
        answered=one.answered,
        accepted=MoneyOut.of(one.accepted, one.currency),
        returned=MoneyOut.of(one.returned, one.currency),
        claimed=MoneyOut.of(one.claimed, one.currency),
    )


def line_out(line: Line, currency: str) -> RemittalLineOut:
    """A line in the API's shape."""
    return RemittalLineOut(
        position=line.position,
        enrolment=public_id("enr", line.enrolment_id),
        product=line.product,
        applies_to=line.applies_to,
        paid_on=line.paid_on,
        rate=line.rate,
        amount=MoneyOut.of(line.amount, currency),
        has_number=line.has_number,
        state=line.state,
        accepted=None if line.accepted is None else MoneyOut.of(line.accepted, currency),
        claimed=MoneyOut.of(line.claimed, currency),
        reason=line.reason,
    )
