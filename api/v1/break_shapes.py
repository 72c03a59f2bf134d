"""The shapes of breaks and their resolutions."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field

from api import bank_statements
from api.approvals.breaks import BREAK, RESOLUTION
from api.v1.schemas import Currency, Day, In, Instant, MoneyOut, Out, Slug, Text
from ledger.ids import parse_public_id, public_id
from ledger.money import AMOUNT_MAX
from ledger.reconciliation.reading import StatementLine
from ledger.reconciliation.sealing import LineText
from products.reconciliation.breaks.choices import PAIRED_MAX, PARTS_MAX, Choice, Method, Part, Target
from products.reconciliation.breaks.queries import Break, BrokenItem, Event, State
from products.reconciliation.breaks.resolve import Resolution, ResolutionState
from products.reconciliation.breaks.suggestions import Likeness, Suggestion
from products.reconciliation.breaks.typing import BreakType, SubjectKind
from products.reconciliation.hand_pairing import ITEM_PREFIX, PAIRING_PREFIX

ITEM: Final = ITEM_PREFIX
_SUBJECTS: Final = {
    "line": bank_statements.LINE,
    "item": ITEM,
    "delivery": "dlv",
    "settlement": "stl",
    "credit": "crd",
    "receipt": "rcp",
    "remittal_line": "rtn",
}
_NAMED: Final = {"settlement": "stl", "remittance": "rmt", "remittal": "rtl", "other_item": ITEM}
_LISTED: Final = {"lines": bank_statements.LINE, "items": ITEM}

Code = Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$", examples=["bank_charges"])]
Id = Annotated[str, Field(max_length=64)]


class SubjectOut(Out):
    """What a break is of."""

    kind: SubjectKind
    id: str


class BreakOut(Out):
    """Something that does not tie. `amount` is signed as in statements; `age_days` counts from `on`.

    `share_basis_points`: its share of all that is broken in its fund and currency now, in hundredths of a percent.
    """

    id: Annotated[str, Field(examples=[f"{BREAK}_{'0' * 26}"])]
    type: BreakType
    state: State
    programme: str
    fund: str
    bank_account: str | None
    partner: str | None
    subject: SubjectOut
    amount: MoneyOut
    on: Day
    age_days: int
    share_basis_points: int | None
    owner: str | None
    waits_until: Day | None
    remark: str | None
    found_at: Instant
    ended_at: Instant | None


class BreakEventOut(Out):
    """Something that happened to a break."""

    what: str
    by: str
    at: Instant
    remark: str
    details: dict[str, Any]


class BrokenLineOut(Out):
    """A statement line of a break. What is personal in it is null once its member is erased, or its file's time is over."""

    id: str
    amount: MoneyOut
    booked_on: Day
    value_on: Day
    kind: str | None
    end_to_end: str | None
    reference: str | None
    identifiers: list[str]
    party: str | None
    text: str | None
    counterparty: str | None
    counterparty_account: str | None


class BrokenItemOut(Out):
    """An item of a break. `source`: `booked`, or expected as a `payout` or a `settlement`."""

    id: str
    source: str
    bank_account: str
    amount: MoneyOut
    on: Day
    kind: str
    end_to_end: str | None
    reference: str | None
    party: str | None
    batch: str | None
    subject: str | None
    transaction: str | None


class TargetIn(In):
    """An account to book to; `fund`: where it is not the bank account's own. Costs lie in the administrator's fund."""

    account: Code
    owner: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9-]*$")] = ""
    fund: Annotated[str, Field(max_length=128, examples=["ejoheza/savers"])] | None = None


class TargetOut(Out):
    """An account to book to."""

    account: str
    owner: str
    fund: str | None


class SignedMoneyIn(In):
    """Minor units in one currency; negative when money goes out."""

    amount: Annotated[int, Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
    currency: Currency


class PartIn(In):
    """A part of a split: to an account, or an item."""

    amount: SignedMoneyIn
    to: TargetIn | None = None
    item: Id | None = None


class BreakResolutionIn(In):
    """How a break is to be ended.

    `pair` needs `lines` or `items`, and `to` for what they differ by; `book` needs `to`; `split` needs `parts`; `wait` needs
    `until`; `write_off` and `explain` need nothing.
    """

    method: Annotated[Method, Field(examples=["book"])]
    lines: Annotated[list[Id], Field(default_factory=list, max_length=PAIRED_MAX)]
    items: Annotated[list[Id], Field(default_factory=list, max_length=PAIRED_MAX)]
    to: TargetIn | None = None
    parts: Annotated[list[PartIn], Field(default_factory=list, max_length=PARTS_MAX)]
    until: Day | None = None

    def choice(self) -> Choice:
        """As the domain's choice. Raises InvalidId."""
        return Choice(
            method=self.method,
            lines=tuple(parse_public_id(bank_statements.LINE, one) for one in self.lines),
            items=tuple(parse_public_id(ITEM, one) for one in self.items),
            to=_target(self.to),
            parts=tuple(
                Part(
                    part.amount.amount,
                    _target(part.to),
                    parse_public_id(ITEM, part.item) if part.item is not None else None,
                )
                for part in self.parts
            ),
            until=self.until,
        )


class PreviewedPostingOut(Out):
    """One amount from one debited to one credited account of a fund, as it would be posted, or was."""

    kind: str
    effective_on: Day
    fund: str
    debit: str
    debit_owner: str
    credit: str
    credit_owner: str
    amount: MoneyOut


class PreviewedPairingOut(Out):
    """Lines and items of one bank account that would stand in a pairing; `posted`: what is posted there with it."""

    bank_account: str
    amount: MoneyOut
    lines: list[str]
    items: list[str]
    posted: list[MoneyOut]


class ResolutionOut(Out):
    """How a break would be ended, or was. A confirmation names `digest`: what was seen is what is done."""

    id: Annotated[str, Field(examples=[f"{RESOLUTION}_{'0' * 26}"])]
    break_id: Annotated[str, Field(examples=[f"{BREAK}_{'0' * 26}"])]
    method: Method
    state: ResolutionState
    digest: str
    amount: Annotated[
        MoneyOut, Field(description="what it is about: above the limit, a second person decides")
    ]
    second_person: Annotated[bool, Field(description="whether one decides, by the limit now")]
    to: TargetOut | None
    until: Day | None
    postings: list[PreviewedPostingOut]
    postings_in_all: int
    pairings: list[PreviewedPairingOut]
    previewed_by: str
    previewed_at: Instant
    remark: str | None
    confirmed_by: str | None
    confirmed_at: Instant | None
    approved_by: str | None
    transactions: list[str]
    undone_by: str | None
    undone_at: Instant | None
    undone_remark: str | None


class BreakSuggestionOut(Out):
    """How breaks like this one were ended: what to choose, or whose it is. Nothing is applied by itself."""

    likeness: Annotated[Likeness, Field(description="what they have in common")]
    method: Method | None
    to: TargetOut | None
    partner: str | None
    agree: Annotated[int, Field(description="how many ended so")]
    disagree: Annotated[int, Field(description="how many ended otherwise, or were undone")]
    resolutions: Annotated[list[str], Field(description="those that agree, the latest first")]
    pairings: Annotated[list[str], Field(description="those that agree, the latest first")]


class SuggestionsOut(Out):
    """What was learned for a break, the nearest likeness first."""

    data: list[BreakSuggestionOut]


class BreakDetailOut(BreakOut):
    """A break with what it is of, what was found on the other side, and its history."""

    details: dict[str, Any]
    other_account: str | None
    lines: list[BrokenLineOut]
    items: list[BrokenItemOut]
    history: list[BreakEventOut]
    resolutions: list[ResolutionOut]
    suggestions: list[BreakSuggestionOut]


class AssignmentIn(In):
    """Whose a break is: an operator's id, a team's name, or null for nobody."""

    owner: Text | None
    remark: Annotated[str, Field(max_length=1000)] = ""


class LearningIn(In):
    """Whose account it is on the other side of the break's line."""

    partner: Annotated[Slug, Field(examples=["acme"])]


class BreakConfirmationIn(In):
    """That what the preview showed is to be done, and why."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the preview that was seen")]
    remark: Annotated[str, Field(min_length=1, max_length=1000)]


class UndoingIn(In):
    """Why it is taken back."""

    remark: Annotated[str, Field(min_length=1, max_length=1000)]


class BreakLimitIn(In):
    """From which value on a second person decides."""

    currency: Currency
    second_person_above: Annotated[int, Field(ge=0, le=AMOUNT_MAX, description="minor units")]


class BreakLimitOut(Out):
    """From which value on a second person decides how breaks of a programme are ended; 0: always."""

    programme: Slug
    second_person_above: MoneyOut


def _target(given: TargetIn | None) -> Target | None:
    return Target(given.account, given.owner, given.fund) if given is not None else None


def target_out(target: Target | None) -> TargetOut | None:
    """A target as it is shown."""
    return TargetOut(account=target.account, owner=target.owner, fund=target.fund) if target else None


def break_out(one: Break) -> BreakOut:
    """A break as lists show it."""
    return BreakOut(**fields(one))


def fields(one: Break) -> dict[str, Any]:
    """The fields of a `BreakOut`."""
    prefix = (
        "stl"
        if one.subject_kind == "receipt" and "settlement" in one.details
        else _SUBJECTS.get(one.subject_kind)
    )
    return {
        "id": public_id(BREAK, one.id),
        "type": one.type,
        "state": one.state,
        "programme": one.programme,
        "fund": one.fund,
        "bank_account": one.bank_account,
        "partner": one.partner,
        "subject": SubjectOut(
            # a delivery is a break of each programme that it may be of
            kind=one.subject_kind,
            id=one.subject if prefix is None else _public(prefix, one.subject.partition(":")[0]),
        ),
        "amount": MoneyOut.of(one.amount, one.currency),
        "on": one.on_date,
        "age_days": one.age_days,
        "share_basis_points": one.share_basis_points,
        "owner": one.owner,
        "waits_until": one.waits_until,
        "remark": one.remark,
        "found_at": one.found_at,
        "ended_at": one.ended_at,
    }


def details_out(one: Break) -> dict[str, Any]:
    """What a break was found from, with public ids; sums as money."""
    shown: dict[str, Any] = {}
    for name, value in one.details.items():
        if name in _LISTED:
            shown[name] = [_public(_LISTED[name], id_) for id_ in value]
        elif name == "arrived":
            shown[name] = MoneyOut.of(value, one.currency).model_dump()
        elif name == "expected":
            currency = one.details.get("expected_currency") or one.currency
            shown[name] = MoneyOut.of(value, currency).model_dump()
        elif name in _NAMED:
            shown[name] = _public(_NAMED[name], value)
        elif name not in ("other_account", "expected_currency"):
            shown[name] = value
    return shown


def _public(prefix: str, id_: str) -> str:
    return public_id(prefix, UUID(id_))


def event_out(one: Event) -> BreakEventOut:
    """An event with public ids."""
    details = dict(one.details)
    if "resolution" in details:
        details["resolution"] = _public(RESOLUTION, details["resolution"])
    return BreakEventOut(what=one.what, by=one.by_whom, at=one.at, remark=one.remark, details=details)


def line_out(one: StatementLine, said: LineText) -> BrokenLineOut:
    """A statement line as a break shows it."""
    return BrokenLineOut(
        id=public_id(bank_statements.LINE, one.id),
        amount=MoneyOut.of(one.amount, one.currency),
        booked_on=one.booked_on,
        value_on=one.value_on,
        kind=one.kind,
        end_to_end=one.end_to_end,
        reference=one.reference,
        identifiers=list(one.identifiers),
        party=one.party,
        text=said.text or None,
        counterparty=said.counterparty,
        counterparty_account=said.counterparty_account,
    )


def item_out(one: BrokenItem) -> BrokenItemOut:
    """An item as a break shows it."""
    return BrokenItemOut(
        id=public_id(ITEM, one.id),
        source=one.source,
        bank_account=one.bank_account,
        amount=MoneyOut.of(one.amount, one.currency),
        on=one.on_date,
        kind=one.kind,
        end_to_end=one.end_to_end,
        reference=one.reference,
        party=one.party,
        batch=one.batch,
        subject=one.subject,
        transaction=public_id("txn", one.transaction_id) if one.transaction_id else None,
    )


def resolution_out(one: Resolution, currency: str, *, second_person: bool) -> ResolutionOut:
    """A resolution with what its preview showed."""
    to = one.choice["to"]
    return ResolutionOut(
        id=public_id(RESOLUTION, one.id),
        break_id=public_id(BREAK, one.break_id),
        method=one.method,
        state=one.state,
        digest=one.digest.hex(),
        amount=MoneyOut.of(one.amount, currency),
        second_person=second_person,
        to=TargetOut(**to) if to else None,
        until=one.choice["until"],
        postings=[_posting(posting) for posting in one.preview["postings"]],
        postings_in_all=one.preview["postings_in_all"],
        pairings=[
            PreviewedPairingOut(
                bank_account=pairing["bank_account"],
                amount=MoneyOut.of(pairing["amount"], currency),
                lines=[_public(bank_statements.LINE, id_) for id_ in pairing["lines"]],
                items=[_public(ITEM, id_) for id_ in pairing["items"]],
                posted=[MoneyOut.of(amount, currency) for amount in pairing["posted"]],
            )
            for pairing in one.preview["pairings"]
        ],
        previewed_by=one.previewed_by,
        previewed_at=one.previewed_at,
        remark=one.remark,
        confirmed_by=one.confirmed_by,
        confirmed_at=one.confirmed_at,
        approved_by=one.approved_by,
        transactions=[public_id("txn", id_) for id_ in one.transactions],
        undone_by=one.undone_by,
        undone_at=one.undone_at,
        undone_remark=one.undone_remark,
    )


def _posting(stored: dict[str, Any]) -> PreviewedPostingOut:
    values = {name: value for name, value in stored.items() if name not in ("amount", "currency")}
    return PreviewedPostingOut(**values, amount=MoneyOut.of(stored["amount"], stored["currency"]))


def suggestion_out(one: Suggestion) -> BreakSuggestionOut:
    """A suggestion with its evidence."""
    return BreakSuggestionOut(
        likeness=one.likeness,
        method=one.method,
        to=target_out(one.to),
        partner=one.partner,
        agree=one.agree,
        disagree=one.disagree,
        resolutions=[public_id(RESOLUTION, id_) for id_ in one.resolutions],
        pairings=[public_id(PAIRING_PREFIX, id_) for id_ in one.pairings],
    )
