"""The audit log, for auditors."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api import auditing
from api.deps import Call, calling, path_id
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Instant, Out, Page, errors
from ledger import audit
from ledger.audit import Entry, Wanted
from ledger.audit_proof import leaf_fields, prove
from ledger.ids import public_id

router = APIRouter(tags=["audit"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("audit:read")]
Filter = Annotated[
    str | None, Query(min_length=1, max_length=audit.TEXT_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")
]


class EntryOut(Out):
    """One entry: who did what, when and from where, and whether it was done or refused."""

    id: Annotated[str, Field(examples=[f"aud_{'0' * 26}"])]
    recorded_at: Instant
    actor: Annotated[str, Field(description="`opr_…`, `cli_…`, `mem_…`, or who ran a command")]
    actor_kind: str
    action: Annotated[str, Field(examples=["approval.approved"])]
    object: str
    outcome: Literal["done", "refused"]
    address: str | None
    request_id: str | None
    programme: str | None
    detail: dict[str, Any] | None
    before: Annotated[
        dict[str, Any] | None, Field(description="null where there was none, or its key is destroyed")
    ]
    after: Annotated[
        dict[str, Any] | None, Field(description="null where there was none, or its key is destroyed")
    ]
    before_digest: Annotated[str | None, Field(description="SHA-256 of the sealed value, in hexadecimal")]
    after_digest: Annotated[str | None, Field(description="SHA-256 of the sealed value, in hexadecimal")]


class EntryProofOut(Out):
    """What proves an entry without the database: the fields of its leaf, and its way to a signed seal."""

    status: Literal["pending", "sealed"]
    fields: dict[str, Any]
    proof: dict[str, Any] | None


@router.get("/v1/audit", operation_id="list_audit_entries", summary="Read the audit log", responses=errors())
def list_audit_entries(
    call: Reading,
    actor: Filter = None,
    action: Filter = None,
    object: Filter = None,  # noqa: A002  the parameter's published name
    outcome: Literal["done", "refused"] | None = None,
    since: Annotated[Instant | None, Query(alias="from", description="recorded at or after this")] = None,
    until: Annotated[Instant | None, Query(alias="to", description="recorded before this")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[EntryOut]:
    """Entries behind the settled horizon, oldest first; `action=period` also finds `period.closed`."""
    wanted = Wanted(actor, action, object, outcome, since, until)
    filters = {
        "actor": actor,
        "action": action,
        "object": object,
        "outcome": outcome,
        "from": since,
        "to": until,
    }
    after = call.read_position(cursor, "audit", **filters)
    rows = audit.entries(call.tx, wanted, after=after, limit=limit + 1)
    shown = rows[:limit]
    last = shown[-1].position if len(rows) > limit else None
    values = auditing.values(call.tx, call.services.keyring, shown)
    return Page(
        data=[_shown(row, *values[row.id]) for row in shown],
        next_cursor=call.write_position(last, "audit", **filters),
    )


@router.get(
    "/v1/audit/{entry}/proof",
    operation_id="get_audit_entry_proof",
    summary="Prove an audit entry",
    responses=errors(),
)
def get_audit_entry_proof(entry: Annotated[str, Path(max_length=64)], call: Reading) -> EntryProofOut:
    """What the entry's leaf is hashed from, and once it is sealed its audit path and the signed seal."""
    wanted = path_id("aud", entry)
    audit.entry(call.tx, wanted)  # seen by this caller, or it is not there
    with (
        call.services.worker.read() as whole
    ):  # the path passes entries of other programmes: only their hashes leave
        found, proof = prove(whole, wanted)
    return EntryProofOut(
        status="pending" if proof is None else "sealed",
        fields=leaf_fields(found),
        proof=proof.to_json() if proof is not None else None,
    )


def _shown(row: Entry, before: auditing.Value | None, after: auditing.Value | None) -> EntryOut:
    return EntryOut(
        id=public_id("aud", row.id),
        recorded_at=row.recorded_at,
        actor=row.actor,
        actor_kind=row.actor_kind,
        action=row.action,
        object=row.object,
        outcome=row.outcome,
        address=row.address,
        request_id=row.request_id,
        programme=public_id("prg", row.programme_id) if row.programme_id else None,
        detail=row.detail,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        before_digest=row.before_digest.hex() if row.before_digest else None,
        after_digest=row.after_digest.hex() if row.after_digest else None,
    )
