"""What a programme's months, their check-lists and closes look like over the API."""

from typing import Annotated, Literal

from pydantic import Field

from api.v1.schemas import Day, In, Instant, MoneyOut, Out, Text
from products.closing import listing
from products.closing.close import Close
from products.closing.findings import Finding, Item, ItemName
from products.closing.findings import State as ItemState
from products.closing.listing import Month


class CloseOut(Out):
    """One close of a month. `seal` is null until its digests are sealed; `superseded` once the month was reopened."""

    revision: int
    through: Day
    closed_at: Instant
    closed_by: str
    remark: str
    digest: Annotated[str, Field(description="SHA-256 of the pack's figures, in hexadecimal")]
    files: Annotated[dict[str, str], Field(description="SHA-256 of the pack in each of its forms")]
    seal: Annotated[int | None, Field(description="the number of the seal that covers the digests")]
    superseded: bool
    reopened_at: Instant | None
    reopened_by: str | None
    reopen_reason: str | None


class PeriodOut(Out):
    """A programme's month."""

    programme: str
    month: Annotated[str, Field(examples=["2026-03"])]
    state: listing.State
    over: Annotated[bool, Field(description="whether the month is over in the programme's time zone")]
    close: CloseOut | None


class FundOut(Out):
    """A fund of the programme and the last day through which it is closed."""

    fund: str
    closed_through: Day | None


class PeriodWithCloses(PeriodOut):
    """A programme's month with every close that it has had, the last first."""

    funds: list[FundOut]
    closes: list[CloseOut]


class SaidOut(Out):
    """A person's word about what was found."""

    remark: str
    by: str
    at: Instant
    owner: str | None


class FindingOut(Out):
    """Something that is not as it should be."""

    subject: str
    what: str
    amount: MoneyOut | None
    count: int | None
    link: Annotated[str | None, Field(description="where the API shows it")]
    explanation: SaidOut | None


class CloseItemOut(Out):
    """One item of the check-list."""

    item: ItemName
    title: str
    state: ItemState
    explainable: Annotated[bool, Field(description="false: it has to be put right")]
    figures: dict[str, int | str | None]
    findings: list[FindingOut]


class CheckListOut(Out):
    """The check-list of a month, judged now; the month may be closed when it is `green`: nothing is red."""

    programme: str
    month: str
    judged_at: Instant
    green: bool
    items: list[CloseItemOut]


class CloseExplanationIn(In):
    """Why it is as it is."""

    remark: Annotated[str, Field(min_length=1, max_length=1_000, examples=["paid in on 2 April"])]
    subject: Annotated[Text | None, Field(description="one finding; all of the item's when left out")] = None
    owner: Annotated[Text | None, Field(description="who sees to it: of what is quarantined")] = None


class CloseIn(In):
    """The close that is asked for."""

    remark: Annotated[str, Field(max_length=500, examples=["March, as agreed with the auditor"])] = ""


class ReopenIn(In):
    """Why the month is opened again."""

    reason: Text


class BooksVerificationOut(Out):
    """A verification that was asked for; the worker carries it out."""

    id: str
    state: Literal["asked"] = "asked"


class PartOut(Out):
    """A transaction, and what of it is in the figure."""

    transaction: str
    kind: str
    reference: str
    effective_on: Day
    amount: MoneyOut


def month_out(one: Month) -> PeriodOut:
    """A month as it is shown."""
    return PeriodOut(
        programme=one.period.programme,
        month=one.period.label,
        state=one.state,
        over=one.over,
        close=close_out(one.close) if one.close is not None else None,
    )


def close_out(one: Close) -> CloseOut:
    """A close as it is shown."""
    return CloseOut(
        revision=one.revision,
        through=one.through,
        closed_at=one.closed_at,
        closed_by=one.closed_by,
        remark=one.remark,
        digest=one.digest.hex(),
        files={name: value.hex() for name, value in one.files.items()},
        seal=one.seal,
        superseded=not one.stands,
        reopened_at=one.reopened_at,
        reopened_by=one.reopened_by,
        reopen_reason=one.reopen_reason,
    )


def item_out(item: Item) -> CloseItemOut:
    """An item of a check-list as it is shown."""
    return CloseItemOut(
        item=item.name,
        title=item.title,
        state=item.state,
        explainable=item.explainable,
        figures=dict(item.figures),
        findings=[finding_out(one) for one in item.findings],
    )


def finding_out(one: Finding) -> FindingOut:
    """A finding as it is shown."""
    said = one.explanation
    return FindingOut(
        subject=one.subject,
        what=one.what,
        amount=MoneyOut.of(one.amount, one.currency)
        if one.amount is not None and one.currency is not None
        else None,
        count=one.count,
        link=one.link,
        explanation=SaidOut(remark=said.remark, by=said.by, at=said.at, owner=said.owner) if said else None,
    )
