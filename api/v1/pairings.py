"""Pairings: which statement lines and which items belong together, by which rule; made and taken back by hand."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from api import bank_statements
from api.approvals.breaks import RESOLUTION
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Day, In, Instant, MoneyOut, Out, Page, Slug, Text, errors
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import bank_accounts, pairings
from ledger.reconciliation.pairings import MEMBERS_MAX, REMARK_MAX, OpenItem, Pairing
from products.reconciliation import hand_pairing
from products.reconciliation.hand_pairing import ITEM_PREFIX, PAIRING_PREFIX

router = APIRouter(tags=["reconciliation"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("reconciliation:read")]
Writing = Annotated[Call, writing("reconciliation:write")]
PairingId = Annotated[str, Path(max_length=64, examples=[f"{PAIRING_PREFIX}_{'0' * 26}"])]
LineId = Annotated[str, Field(max_length=64, examples=[f"{bank_statements.LINE}_{'0' * 26}"])]
ItemId = Annotated[str, Field(max_length=64, examples=[f"{ITEM_PREFIX}_{'0' * 26}"])]
Remark = Annotated[Text, Field(max_length=REMARK_MAX, examples=["the bank cut the reference off"])]


class PairingIn(In):
    """What belongs together: the lines and the items come to the same sum. Payments that were sent are confirmed by it."""

    lines: Annotated[list[LineId], Field(min_length=1, max_length=MEMBERS_MAX)]
    items: Annotated[list[ItemId], Field(min_length=1, max_length=MEMBERS_MAX)]
    remark: Remark


class UndoIn(In):
    """Why a pairing is taken back."""

    remark: Remark


class PairingOut(Out):
    """Lines and items that belong together: their sums are `amount`. `undone_at`: it was taken back, and stands no more."""

    id: Annotated[str, Field(examples=[f"{PAIRING_PREFIX}_{'0' * 26}"])]
    bank_account: str
    rule: Annotated[
        str, Field(description="the rule that made it; `by_hand`: a person", examples=["end_to_end"])
    ]
    evidence: Annotated[dict[str, Any], Field(description="what the rule found in common")]
    amount: MoneyOut
    lines: list[str]
    items: list[str]
    run: Annotated[UUID | None, Field(description="the run of the reconciliation; null: by hand")]
    made_by: str
    made_at: Instant
    undone_at: Instant | None
    undone_by: str | None
    undone_remark: str | None


class OpenItemOut(Out):
    """What a statement line may be the other side of: a posting, a payment that was sent, or what a partner owes of a day."""

    id: Annotated[str, Field(examples=[f"{ITEM_PREFIX}_{'0' * 26}"])]
    source: Literal["booked", "payout", "settlement"]
    amount: Annotated[MoneyOut, Field(description="as in statements: positive when money comes in")]
    on_date: Day
    day: Annotated[Day | None, Field(description="the partner's business day that it is for")]
    kind: str
    end_to_end: str | None
    reference: str | None
    identifiers: list[str]
    party: str | None
    batch: str | None


@router.get("/v1/pairings", operation_id="list_pairings", summary="List pairings", responses=errors())
def list_pairings(
    call: Reading,
    bank_account: Annotated[Slug | None, Query(description="only this bank account's")] = None,
    standing: Annotated[
        bool | None, Query(description="true: those that stand; false: those taken back")
    ] = None,
    rule: Annotated[str | None, Query(max_length=40, description="only those of this rule")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[PairingOut]:
    """Pairings in the order in which they were made."""
    filters = {"account": bank_account, "standing": standing, "rule": rule}
    after = call.read_position(cursor, "pairings", **filters)
    rows = pairings.page(
        call.tx,
        after=after,
        limit=limit + 1,
        bank_account_id=None if bank_account is None else bank_accounts.by_slug(call.tx, bank_account).id,
        standing=standing,
        rule=rule,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[pairing_out(one) for one in rows[:limit]],
        next_cursor=call.write_position(last, "pairings", **filters),
    )


@router.get(
    "/v1/pairings/{pairing}", operation_id="get_pairing", summary="Read a pairing", responses=errors()
)
def get_pairing(pairing: PairingId, call: Reading) -> PairingOut:
    """Which rule made it, on what evidence, and whether it was taken back."""
    return pairing_out(pairings.get(call.tx, path_id(PAIRING_PREFIX, pairing)))


@router.post(
    "/v1/pairings",
    operation_id="pair_by_hand",
    summary="Pair lines with items",
    status_code=201,
    response_model=PairingOut,
    responses={201: REPLAYED, **errors(409)},
)
def pair_by_hand(body: PairingIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Pair what no rule could. Of two who pair the same line at once, one is told that it is paired already."""

    def effect() -> tuple[int, PairingOut]:
        made = hand_pairing.pair(
            call.tx,
            call.services.books,
            [parse_public_id(bank_statements.LINE, one) for one in body.lines],
            [parse_public_id(ITEM_PREFIX, one) for one in body.items],
            remark=body.remark,
            actor=call.actor.id,
            funds=bank_statements.funds_of(call.tx, call.actor.sight(["reconciliation:write"]).programmes),
        )
        shown = pairing_out(made)
        call.audit("pairing.made", shown.id, lines=len(made.lines), items=len(made.items), amount=made.amount)
        return 201, shown

    return call.once(idempotency_key, "pair_by_hand", effect)


@router.post(
    "/v1/pairings/{pairing}/undo",
    operation_id="undo_pairing",
    summary="Take a pairing back",
    response_model=PairingOut,
    responses={200: REPLAYED, **errors(409)},
)
def undo_pairing(
    pairing: PairingId, body: UndoIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Take a pairing back, with what it did to the books. It stays on record, and no rule makes the same one again."""

    def effect() -> tuple[int, PairingOut]:
        undone = hand_pairing.undo(
            call.tx,
            call.services.books,
            path_id(PAIRING_PREFIX, pairing),
            remark=body.remark,
            actor=call.actor.id,
            funds=bank_statements.funds_of(call.tx, call.actor.sight(["reconciliation:write"]).programmes),
        )
        call.audit("pairing.undone", pairing, rule=undone.rule, amount=undone.amount)
        return 200, pairing_out(undone)

    return call.once(idempotency_key, "undo_pairing", effect)


@router.get(
    "/v1/bank-accounts/{bank_account}/open-items",
    operation_id="list_open_items",
    summary="List what awaits a line",
    responses=errors(),
)
def list_open_items(
    bank_account: Annotated[Slug, Path(description="the bank account's name", examples=["kigali-savers"])],
    call: Reading,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[OpenItemOut]:
    """What the books, payments on their way and partners' days expect at the bank and no line shows yet, the oldest first."""
    at = call.read_cursor(cursor, "open_items", account=bank_account)
    rows = pairings.open_items(
        call.tx,
        bank_accounts.by_slug(call.tx, bank_account).id,
        after=UUID(str(at[0])) if at else None,
        limit=limit + 1,
    )
    last: list[int | str] | None = [str(rows[limit - 1].id)] if len(rows) > limit else None
    return Page(
        data=[item_out(one) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "open_items", account=bank_account),
    )


def pairing_out(one: Pairing) -> PairingOut:
    """A pairing as it is told."""
    return PairingOut(
        id=public_id(PAIRING_PREFIX, one.id),
        bank_account=one.bank_account,
        rule=one.rule,
        evidence=evidence_out(one),
        amount=MoneyOut.of(one.amount, one.currency),
        lines=[public_id(bank_statements.LINE, line) for line in one.lines],
        items=[public_id(ITEM_PREFIX, item) for item in one.items],
        run=one.run_id,
        made_by=one.made_by,
        made_at=one.made_at,
        undone_at=one.undone_at,
        undone_by=one.undone_by,
        undone_remark=one.undone_remark,
    )


def evidence_out(one: Pairing) -> dict[str, Any]:
    """What a pairing was made of, with public ids."""
    shown = dict(one.evidence)
    if "proposed" in shown:
        shown["proposed"] = [public_id(ITEM_PREFIX, UUID(id_)) for id_ in shown["proposed"]]
    for name, prefix in (("resolution", RESOLUTION), ("taken_back", "txn")):
        if name in shown:
            shown[name] = public_id(prefix, UUID(shown[name]))
    return shown


def item_out(one: OpenItem) -> OpenItemOut:
    """An item as it is told."""
    return OpenItemOut(
        id=public_id(ITEM_PREFIX, one.id),
        source=one.source,
        amount=MoneyOut.of(one.amount, one.currency),
        on_date=one.on_date,
        day=one.day,
        kind=one.kind,
        end_to_end=one.end_to_end,
        reference=one.reference,
        identifiers=list(one.identifiers),
        party=one.party,
        batch=one.batch,
    )
