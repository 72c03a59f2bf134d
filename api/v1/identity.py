"""Documents by which a member is known, and who verified them."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field
from sqlalchemy import text

from api.deps import Call, calling, path_id
from api.v1.finding import found
from api.v1.schemas import ROUTE_CLASS, Country, Day, In, Instant, MemberId, Out, Text, errors
from ledger.errors import InvalidInput
from ledger.ids import public_id
from products.members import documents, verification
from products.members.documents import Document, NewDocument
from products.members.registry import cipher_of
from products.members.verification import Verification

router = APIRouter(prefix="/v1/members/{member}", tags=["members"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("members:read")]
Writing = Annotated[Call, calling("members:write")]

DocumentId = Annotated[str, Path(max_length=64, description="a document's id, `doc_…`")]
VerificationId = Annotated[str, Path(max_length=64, description="a verification's id, `ver_…`")]


class DocumentIn(In):
    """A document. The numbers of many national documents are checked; any other type is taken as it is."""

    type: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,62}$",
            description="`national_id`, `passport`, `tax_id`, `social_security`, `voter_card`, or a name of your own",
            examples=["passport"],
        ),
    ]
    country: Annotated[Country, Field(description="that issued it", examples=["RW"])]
    number: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$", examples=["PC123456"])]
    expires_on: Day | None = None


class DocumentOut(Out):
    """A document on record."""

    id: Annotated[str, Field(examples=[f"doc_{'0' * 26}"])]
    type: str
    country: str
    number: str
    expires_on: Day | None
    checked: Annotated[
        Literal["number", "nothing"],
        Field(description="`number`: its check digits are right; `nothing`: nobody here knows the type"),
    ]
    recorded_at: Instant
    ended_at: Instant | None


class DocumentsOut(Out):
    """All documents of a member."""

    data: list[DocumentOut]


class VerificationIn(In):
    """That somebody verified who the member is."""

    level: Annotated[
        Literal["document", "institution"],
        Field(
            description="`document`: you saw one; `institution`: an organisation's word. The phone is verified by a code."
        ),
    ]
    document: Annotated[
        str | None, Field(max_length=64, description="the one that was seen; needed for the level `document`")
    ] = None
    evidence: Annotated[Text | None, Field(description="where you keep the proof")] = None
    verified_at: Instant | None = None
    valid_until: Annotated[
        Day | None, Field(description="absent: as long as the document, or without end")
    ] = None


class VerificationOut(Out):
    """A verification on record."""

    id: Annotated[str, Field(examples=[f"ver_{'0' * 26}"])]
    level: Literal["none", "phone", "document", "institution"]
    holds: bool
    verified_by: str
    document: str | None
    evidence: str | None
    verified_at: Instant
    valid_until: Day | None
    ended_at: Instant | None


class VerificationsOut(Out):
    """All verifications of a member, oldest first."""

    data: list[VerificationOut]


@router.get("/documents", operation_id="list_documents", summary="Read documents", responses=errors())
def list_documents(member: MemberId, call: Reading) -> DocumentsOut:
    """The documents recorded through the caller's partner, ended ones too."""
    person = found(call, member)
    cipher = cipher_of(call.tx, call.services.keyring, person)
    return DocumentsOut(
        data=[document_out(one) for one in documents.documents_of(call.tx, cipher, person.member_id)]
    )


@router.post(
    "/documents",
    operation_id="record_document",
    summary="Record a document",
    status_code=201,
    responses=errors(409),
)
def record_document(member: MemberId, body: DocumentIn, call: Writing) -> DocumentOut:
    """Record a document. Verifying the member by it is a second step: somebody has to have seen it."""
    person = found(call, member)
    keyring = call.services.keyring
    new = NewDocument(body.type, body.country, body.number, body.expires_on)
    document = documents.add(call.tx, keyring, cipher_of(call.tx, keyring, person), person, new, call.now)
    call.audit("member.document.recorded", public_id("doc", document.id), type=document.type)
    return document_out(document)


@router.delete(
    "/documents/{document}",
    operation_id="end_document",
    summary="End a document",
    status_code=204,
    responses=errors(),
)
def end_document(member: MemberId, document: DocumentId, call: Writing) -> None:
    """End a document, and what was verified by it."""
    documents.end(call.tx, found(call, member), path_id("doc", document), call.now)
    call.audit("member.document.ended", document)


@router.get(
    "/verifications", operation_id="list_verifications", summary="Read verifications", responses=errors()
)
def list_verifications(member: MemberId, call: Reading) -> VerificationsOut:
    """Who verified the member, how, when, and whether it still holds. The level itself is shown with the member."""
    person = found(call, member)
    cipher = cipher_of(call.tx, call.services.keyring, person)
    known = verification.verifications_of(call.tx, cipher, person.member_id)
    return VerificationsOut(data=[_verification_out(one, call) for one in known])


@router.post(
    "/verifications",
    operation_id="verify_member",
    summary="Say that a member was verified",
    status_code=201,
    responses=errors(),
)
def verify_member(member: MemberId, body: VerificationIn, call: Writing) -> VerificationOut:
    """Raise the member's level: by a document that you saw, or, as an organisation, by your word."""
    person = found(call, member)
    cipher = cipher_of(call.tx, call.services.keyring, person)
    until, document_id = body.valid_until, None
    if body.level == "document":
        document = _seen(documents.documents_of(call.tx, cipher, person.member_id), body.document)
        document_id = document.id
        until = min((day for day in (until, document.expires_on) if day is not None), default=None)
    elif not _is_organisation(call):
        raise InvalidInput("An institution's word is an organisation's to give.", pointer="/level")
    made = verification.record(
        call.tx,
        cipher,
        person,
        body.level,
        verified_by=call.actor.id,
        evidence=body.evidence,
        document_id=document_id,
        valid_until=until,
        verified_at=body.verified_at,
        at=call.now,
    )
    call.audit("member.verified", public_id("ver", made), level=body.level)
    known = verification.verifications_of(call.tx, cipher, person.member_id)
    return _verification_out(next(one for one in known if one.id == made), call)


@router.delete(
    "/verifications/{verification_id}",
    operation_id="end_verification",
    summary="End a verification",
    status_code=204,
    responses=errors(),
)
def end_verification(member: MemberId, verification_id: VerificationId, call: Writing) -> None:
    """End a verification: it raises the level no more."""
    verification.end(call.tx, found(call, member), path_id("ver", verification_id), call.now)
    call.audit("member.verification.ended", verification_id)


def document_out(document: Document) -> DocumentOut:
    """A document as it is shown."""
    return DocumentOut(
        id=public_id("doc", document.id),
        type=document.type,
        country=document.country,
        number=document.number,
        expires_on=document.expires_on,
        checked=document.checked,
        recorded_at=document.recorded_at,
        ended_at=document.ended_at,
    )


def _verification_out(one: Verification, call: Call) -> VerificationOut:
    return VerificationOut(
        id=public_id("ver", one.id),
        level=one.level,
        holds=one.holds(call.now.date()),
        verified_by=one.verified_by,
        document=public_id("doc", one.document_id) if one.document_id is not None else None,
        evidence=one.evidence,
        verified_at=one.verified_at,
        valid_until=one.valid_until,
        ended_at=one.ended_at,
    )


def _seen(known: Sequence[Document], given: str | None) -> Document:
    """The document that a verification rests on. Raises InvalidInput."""
    for document in known:
        if document.ended_at is None and given == public_id("doc", document.id):
            return document
    raise InvalidInput("Name the document of the member that was seen.", pointer="/document")


def _is_organisation(call: Call) -> bool:
    kind = call.tx.execute(
        text("SELECT kind FROM products.partner WHERE id = :id"), {"id": call.partner}
    ).scalar_one_or_none()
    return kind == "organisation"
