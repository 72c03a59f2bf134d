"""Partners' own settlement files: how they are read, and where they differ from the books."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from api import settlement_files, uploads
from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling, path_id, writing
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Day, In, Instant, MoneyOut, Out, Page, Slug, Text, errors
from ledger.ids import parse_public_id, public_id
from products.remittances import partners
from products.settlements import comparison
from products.settlements.comparison import (
    ComparedFile,
    Difference,
    DifferenceState,
    DifferenceType,
    HereState,
    Kind,
)

router = APIRouter(tags=["settlements"], route_class=ROUTE_CLASS)

PREFIX: Final = "stf"
MEDIA_TYPE: Final = "text/csv"

Reading = Annotated[Call, calling("settlements:read")]
Explaining = Annotated[Call, calling("settlements:write")]
Writing = Annotated[Call, writing("settlements:write")]
FileId = Annotated[
    str, Path(max_length=64, description="a file's id, `stf_…`", examples=[f"{PREFIX}_{'0' * 26}"])
]
PartnerSlug = Annotated[Slug, Path(description="the partner's name", examples=["acme"])]
OfPartner = Annotated[Slug, Query(description="the partner's name")]
OfProgramme = Annotated[Slug | None, Query(description="the programme; the partner's only one when left out")]


class SettlementMappingIn(In):
    """How a partner's files are read."""

    mapping: Annotated[
        dict[str, Any],
        Field(
            description="as its JSON Schema says: `mizan settlement mapping --schema`",
            examples=[
                {
                    "remittance_id": {"column": "Reference"},
                    "amount": {"column": "Amount"},
                    "currency": {"constant": "RWF"},
                    "at": {"column": "Paid at", "format": "%d/%m/%Y %H:%M", "zone": "Africa/Kigali"},
                }
            ],
        ),
    ]


class SettlementMappingOut(Out):
    """How a partner's files are read now."""

    mapping: dict[str, Any]


class DifferenceCounts(Out):
    """How many differences there are of each type."""

    missing_here: int = 0
    missing_there: int = 0
    amount: int = 0
    currency: int = 0
    duplicate: int = 0


class SettlementFileOut(Out):
    """A partner's file, compared with the books as they stood at `compared_at`."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    partner: str
    programme: str
    sha256: str
    first_on: Day
    last_on: Day
    lines: int
    compared_at: Instant
    differences: DifferenceCounts
    open: Annotated[int, Field(description="differences that nobody has explained")]


class ComparedOut(SettlementFileOut):
    """What a comparison has found; `duplicate`: the same file was compared before, and nothing changed."""

    duplicate: bool


class DifferenceOut(Out):
    """Where the file (`there`) and the books (`here`) differ about one event."""

    number: int
    type: DifferenceType
    kind: Kind
    remittance_id: str
    remittance: str | None
    row: Annotated[int | None, Field(description="the row in the file")]
    there: MoneyOut | None
    here: MoneyOut | None
    here_state: Annotated[
        HereState | None, Field(description="what we have of the remittance; null: it never came")
    ]
    here_reason: Annotated[str | None, Field(description="why it is not in the books, where that is known")]
    state: DifferenceState
    remark: str | None
    explained_by: str | None
    explained_at: Instant | None


class ExplanationIn(In):
    """Why a difference is one."""

    remark: Text


@router.put(
    "/v1/settlement-mappings/{partner}",
    operation_id="put_settlement_mapping",
    summary="Say how a partner's files are read",
    responses=errors(),
)
def put_settlement_mapping(
    partner: PartnerSlug, body: SettlementMappingIn, call: Writing, programme: OfProgramme = None
) -> SettlementMappingOut:
    """Read the partner's settlement files for the programme by this mapping from now on; files compared before stay."""
    of = settlement_files.joined(call.tx, partner, programme, programmes=_sight(call))
    settlement_files.keep_mapping(call.tx, call.services, of, body.mapping)
    call.audit("settlement_mapping.put", partner, programme_id=of.programme_id)
    return SettlementMappingOut(mapping=body.mapping)


@router.get(
    "/v1/settlement-mappings/{partner}",
    operation_id="get_settlement_mapping",
    summary="Read how a partner's files are read",
    responses=errors(),
)
def get_settlement_mapping(
    partner: PartnerSlug, call: Reading, programme: OfProgramme = None
) -> SettlementMappingOut:
    """The mapping in force."""
    of = settlement_files.joined(call.tx, partner, programme, programmes=None)
    return SettlementMappingOut(mapping=settlement_files.mapping_of(call.tx, of))


@router.post(
    uploads.SETTLEMENT_FILES,
    operation_id="compare_settlement_file",
    summary="Compare a partner's settlement file",
    status_code=201,
    openapi_extra=uploads.described(MEDIA_TYPE, "the partner's file, as its mapping describes it"),
    responses=errors(409),
)
def compare_settlement_file(
    call: Writing,
    partner: OfPartner,
    programme: OfProgramme = None,
    first_on: Annotated[
        Day | None, Query(description="the first day that the file covers; its earliest line's when left out")
    ] = None,
    last_on: Annotated[
        Day | None, Query(description="the last day that the file covers; its latest line's when left out")
    ] = None,
) -> ComparedOut:
    """Compare each event of the file with the books. Nothing is booked; the same file twice changes nothing.

    Days are the programme's. Of the file what its mapping names is kept, line by line, and nothing else.
    """
    of = settlement_files.joined(call.tx, partner, programme, programmes=_sight(call))
    found, new = settlement_files.compare(
        call.tx, call.services, of, uploads.content(call), first_on=first_on, last_on=last_on
    )
    shown = _shown(found)
    call.audit(
        "settlement_file.compared", shown.id, programme_id=of.programme_id, partner=partner, duplicate=not new
    )
    return ComparedOut(**shown.model_dump(), duplicate=not new)


@router.get(
    uploads.SETTLEMENT_FILES,
    operation_id="list_settlement_files",
    summary="List settlement files",
    responses=errors(),
)
def list_settlement_files(
    call: Reading,
    partner: Annotated[Slug | None, Query(description="only this partner's")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[SettlementFileOut]:
    """Files that were compared, the newest first."""
    at = call.read_cursor(cursor, "settlement-files", partner=partner)
    of = partners.find(call.tx, partner).id if partner is not None else None
    before = parse_public_id(PREFIX, str(at[0])) if at else None
    rows = comparison.files(call.tx, partner_id=of, before=before, limit=limit + 1)
    shown = rows[:limit]
    last: list[int | str] | None = [public_id(PREFIX, shown[-1].id)] if len(rows) > limit else None
    return Page(
        data=[_shown(one) for one in shown],
        next_cursor=call.write_cursor(last, "settlement-files", partner=partner),
    )


@router.get(
    f"{uploads.SETTLEMENT_FILES}/{{file}}",
    operation_id="get_settlement_file",
    summary="Read a settlement file's comparison",
    responses=errors(),
)
def get_settlement_file(file: FileId, call: Reading) -> SettlementFileOut:
    """How many differences there are, and how many are open."""
    return _shown(comparison.one_of(call.tx, path_id(PREFIX, file)))


@router.get(
    f"{uploads.SETTLEMENT_FILES}/{{file}}/differences",
    operation_id="list_settlement_differences",
    summary="List a settlement file's differences",
    response_model=Page[DifferenceOut],
    responses={200: CSV, **errors()},
)
def list_settlement_differences(
    file: FileId,
    call: Reading,
    as_csv: AsCsv,
    type: Annotated[  # noqa: A002  the parameter's published name
        list[DifferenceType] | None, Query(max_length=5, description="only those of these types")
    ] = None,
    state: DifferenceState | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[DifferenceOut] | Response:
    """Differences in the order of the file's rows; what is missing there comes last."""
    of = comparison.one_of(call.tx, path_id(PREFIX, file))
    filters: dict[str, Any] = {"file": file, "types": sorted(set(type or ())), "state": state}

    def page(limit: int, cursor: str | None) -> Page[DifferenceOut]:
        at = call.read_cursor(cursor, "settlement-differences", **filters)
        rows = comparison.differences(
            call.tx,
            of.id,
            types=filters["types"],
            state=state,
            after=int(at[0]) if at else 0,
            limit=limit + 1,
        )
        shown = rows[:limit]
        last: list[int | str] | None = [shown[-1].number] if len(rows) > limit else None
        return Page(
            data=[_difference(one) for one in shown],
            next_cursor=call.write_cursor(last, "settlement-differences", **filters),
        )

    if as_csv:
        return export(call, "differences", DifferenceOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


@router.put(
    f"{uploads.SETTLEMENT_FILES}/{{file}}/differences/{{number}}/explanation",
    operation_id="explain_settlement_difference",
    summary="Explain a difference",
    responses=errors(),
)
def explain_settlement_difference(
    file: FileId,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    body: ExplanationIn,
    call: Explaining,
) -> DifferenceOut:
    """Say why it differs: the difference is explained from now on. It moves nothing."""
    of = comparison.one_of(call.tx, path_id(PREFIX, file))
    found = comparison.explain(
        call.tx, call.services.clock, of.id, number, remark=body.remark, by=call.actor.id
    )
    call.audit("settlement_difference.explained", f"{file}/{number}", remark=body.remark)
    return _difference(found)


def _sight(call: Call) -> frozenset[UUID] | None:
    """The programmes that the caller may compare for; row-level security does not hold for who writes."""
    return call.actor.sight(["settlements:write"]).programmes


def _shown(one: ComparedFile) -> SettlementFileOut:
    return SettlementFileOut(
        id=public_id(PREFIX, one.id),
        partner=one.partner,
        programme=one.programme,
        sha256=one.digest.hex(),
        first_on=one.first_on,
        last_on=one.last_on,
        lines=one.lines,
        compared_at=one.compared_at,
        differences=DifferenceCounts.model_validate(one.differences),
        open=one.open,
    )


def _difference(one: Difference) -> DifferenceOut:
    return DifferenceOut(
        number=one.number,
        type=one.type,
        kind=one.kind,
        remittance_id=one.remittance_id,
        remittance=public_id("rmt", one.remittance) if one.remittance else None,
        row=one.position,
        there=_money(one.there_amount, one.there_currency),
        here=_money(one.here_amount, one.here_currency),
        here_state=one.here_state,
        here_reason=one.here_reason,
        state=one.state,
        remark=one.remark,
        explained_by=one.explained_by,
        explained_at=one.explained_at,
    )


def _money(amount: int | None, currency: str | None) -> MoneyOut | None:
    return MoneyOut.of(amount, currency) if amount is not None and currency is not None else None
