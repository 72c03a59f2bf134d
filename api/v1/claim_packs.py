"""Claims from sponsors in arrears: signed packs, their certification, and what becomes of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.approvals import claims
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.seal_key import sealing_key
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.finding import require_programme
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    Day,
    In,
    Instant,
    MoneyOut,
    Out,
    Page,
    Slug,
    Text,
    errors,
)
from ledger.ids import public_id
from products.claims import packs
from products.claims.packs import PREFIX, Line, Pack, State
from products.programmes.registry import find

router = APIRouter(prefix="/v1/claim-packs", tags=["sponsors"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("sponsors:read")]
Writing = Annotated[Call, writing("sponsors:write")]
PackId = Annotated[str, Path(max_length=64, examples=[f"{PREFIX}_{'0' * 26}"])]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]


class ClaimPackIn(In):
    """What is claimed: all that awaits the sponsor for contributions up to and including a day."""

    programme: Annotated[Slug, Field(examples=["apy"])]
    sponsor: Annotated[Slug, Field(examples=["gov-in"])]
    through: Annotated[Day, Field(description="a day of the programme's time zone, not to come")]


class ClaimPackOut(Out):
    """A pack: `claimed` − `adjusted` = `total`. Once `certified` it never changes; `booked_lines` says how far it is booked."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    programme: str
    sponsor: str
    number: int
    since: Day | None
    through: Day
    lines: int
    adjustments: int
    claimed: MoneyOut
    adjusted: MoneyOut
    total: MoneyOut
    sha256: Digest
    key_id: str
    signature: str
    state: Literal["made", "certified", "withdrawn"]
    made_at: Instant
    certification: Annotated[str | None, Field(description="the sponsor's own reference")]
    certified_on: Day | None
    certified_at: Instant | None
    booked_lines: int
    booked_at: Instant | None


class ClaimLineOut(Out):
    """One line. `member` and `account` are pseudonyms that this sponsor alone is told; an adjustment's amount is negative."""

    position: int
    kind: Literal["match", "adjustment"]
    member: str
    account: str
    product: str
    window_start: Day
    window_end: Day
    contributions: int
    contributed: MoneyOut
    rate: Annotated[str, Field(description="what the sponsor pays, in per cent", examples=["50"])]
    amount: MoneyOut
    adjustment: str | None


class CertificationIn(In):
    """What the sponsor certified: the file by its digest, under its own reference."""

    sha256: Digest
    reference: Annotated[Text, Field(examples=["MIN/2026/117"])]
    certified_on: Day


@router.get("", operation_id="list_claim_packs", summary="List claim packs", responses=errors())
def list_claim_packs(
    call: Reading,
    sponsor: Annotated[str | None, Query(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")] = None,
    state: State | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[ClaimPackOut]:
    """Packs in the order in which they were made."""
    after = call.read_position(cursor, "claim_packs", sponsor=sponsor, state=state)
    rows = packs.packs(
        call.tx,
        sponsor=sponsor,
        state=state,
        after=after,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_position(last, "claim_packs", sponsor=sponsor, state=state),
    )


@router.post(
    "",
    operation_id="make_claim_pack",
    summary="Make a claim pack",
    status_code=201,
    response_model=ClaimPackOut,
    responses={201: REPLAYED, **errors(409)},
)
def make_claim_pack(body: ClaimPackIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """List, total and sign what awaits a sponsor in arrears. One pack of a sponsor is open at a time."""

    def effect() -> tuple[int, ClaimPackOut]:
        require_programme(
            call, "sponsors:write", find(call.tx, body.programme), "There is no such programme."
        )
        made = packs.make(
            call.tx,
            call.services.books,
            sealing_key(call.services.settings),
            programme=body.programme,
            sponsor=body.sponsor,
            through=body.through,
        )
        call.audit(
            "claim_pack.made", made.public_id, programme_id=made.programme_id, sha256=made.digest.hex()
        )
        return 201, _shown(made)

    return call.once(idempotency_key, "make_claim_pack", effect)


@router.get("/{pack}", operation_id="get_claim_pack", summary="Read a claim pack", responses=errors())
def get_claim_pack(pack: PackId, call: Reading) -> ClaimPackOut:
    """A pack, its totals, and how far it is booked."""
    return _shown(packs.pack_of(call.tx, path_id(PREFIX, pack)))


@router.get(
    "/{pack}/lines",
    operation_id="list_claim_lines",
    summary="List a claim pack's lines",
    responses=errors(),
)
def list_claim_lines(
    pack: PackId, call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[ClaimLineOut]:
    """The lines as they were signed."""
    found = packs.pack_of(call.tx, path_id(PREFIX, pack))
    at = call.read_cursor(cursor, "claim_lines", pack=pack)
    rows = packs.lines_of(call.tx, found.id, after=int(at[0]) if at else 0, limit=limit + 1)
    more = len(rows) > limit
    return Page(
        data=[_line(row, found.currency) for row in rows[:limit]],
        next_cursor=call.write_cursor([rows[limit - 1].position] if more else None, "claim_lines", pack=pack),
    )


@router.get(
    "/{pack}/file",
    operation_id="get_claim_pack_file",
    summary="Get the signed file",
    response_class=Response,
    responses={
        200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}, "description": "The file."},
        **errors(),
    },
)
def get_claim_pack_file(pack: PackId, call: Reading) -> Response:
    """The file that the sponsor checks and certifies: JSON Lines of a header, the lines, and the signature."""
    found = packs.pack_of(call.tx, path_id(PREFIX, pack))
    name = f"claim-{found.sponsor}-{found.number}.jsonl"
    return Response(
        packs.file_of(call.tx, found),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.post(
    "/{pack}/certification",
    operation_id="certify_claim_pack",
    summary="Ask for a certification to be recorded",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def certify_claim_pack(
    pack: PackId, body: CertificationIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Record that the sponsor certified the pack, when another manager approves; then the sponsor owes it."""

    def effect() -> tuple[int, ApprovalOut]:
        found = _of_the_callers(call, pack)
        filed = claims.request_certification(
            call.tx,
            call.services,
            call.actor,
            found.id,
            sha256=body.sha256,
            reference=body.reference,
            certified_on=body.certified_on,
            origin=origin_of(call),
        )
        return 202, shown_out(filed)

    return call.once(idempotency_key, "certify_claim_pack", effect)


@router.post(
    "/{pack}/withdrawal",
    operation_id="withdraw_claim_pack",
    summary="Withdraw a claim pack",
    response_model=ClaimPackOut,
    responses={200: REPLAYED, **errors(409)},
)
def withdraw_claim_pack(pack: PackId, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Withdraw a pack that is not certified: what it claims can be claimed anew."""

    def effect() -> tuple[int, ClaimPackOut]:
        found = packs.withdraw(call.tx, _of_the_callers(call, pack).id)
        call.audit("claim_pack.withdrawn", found.public_id, programme_id=found.programme_id)
        return 200, _shown(found)

    return call.once(idempotency_key, "withdraw_claim_pack", effect)


def _of_the_callers(call: Call, pack: str) -> Pack:
    found = packs.pack_of(call.tx, path_id(PREFIX, pack))
    require_programme(call, "sponsors:write", found.programme_id, "There is no such claim pack.")
    return found


def _shown(pack: Pack) -> ClaimPackOut:
    return ClaimPackOut(
        id=pack.public_id,
        programme=pack.programme,
        sponsor=pack.sponsor,
        number=pack.number,
        since=pack.since,
        through=pack.through,
        lines=pack.lines,
        adjustments=pack.adjustments,
        claimed=MoneyOut.of(pack.claimed, pack.currency),
        adjusted=MoneyOut.of(pack.adjusted, pack.currency),
        total=MoneyOut.of(pack.total, pack.currency),
        sha256=pack.digest.hex(),
        key_id=pack.key_id,
        signature=pack.signature.hex(),
        state=pack.state,
        made_at=pack.made_at,
        certification=pack.certification,
        certified_on=pack.certified_on,
        certified_at=pack.certified_at,
        booked_lines=pack.booked_lines,
        booked_at=pack.booked_at,
    )


def _line(line: Line, currency: str) -> ClaimLineOut:
    return ClaimLineOut(
        position=line.position,
        kind=line.kind,
        member=line.member,
        account=line.account,
        product=line.product,
        window_start=line.window_start,
        window_end=line.window_end,
        contributions=line.contributions,
        contributed=MoneyOut.of(line.contributed, currency),
        rate=line.rate,
        amount=MoneyOut.of(line.amount, currency),
        adjustment=public_id("adj", line.adjustment_id) if line.adjustment_id is not None else None,
    )
