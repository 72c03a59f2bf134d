"""What strangers, partners, members and staff try: another's things, by every route that names one.

Generated from the routes: one that is new is attacked too, or a test says that it has no body here yet. Attacks on tokens
are in `test_token_attacks`, on the edge in `test_edge`; `docs/reference/threat-model.md` lists them all.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import event

from api import access
from api.access import Entry
from api.settings import CodeSenderKind, Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.cast import Cast, Someone, assemble
from tests.http.served import Served, a_person, served
from tests.http.test_proofs import Phones
from tests.http.things import NAMED, absent, absent_all, bodies, bodies_without_id, everything_of

PUBLIC: Final = {"get_programme", "show_stop_page", "stop_change"}
"""What names no person's thing in its path: rules that are public, and a secret of its own."""


@contextmanager
def statements(api: Served) -> Iterator[list[str]]:
    """Every statement that the API sends meanwhile, as whichever role."""
    sent: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        sent.append(statement)

    engines = [api.services.api.engine, api.services.worker.engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def phones(tmp_path: Path) -> Phones:
    return Phones(tmp_path / "messages.jsonl")


@pytest.fixture
def cast(settings: Settings, databases: Databases, clock: FixedClock, phones: Phones) -> Iterator[Cast]:
    with served(
        settings,
        databases.worker,
        clock,
        code_sender=CodeSenderKind.FILE,
        code_file=phones.path,
        requests_per_minute=1_000_000,
        anonymous_requests_per_minute=1_000_000,
    ) as api:
        yield assemble(api)


def same(answer: httpx.Response, named: Iterable[str] = ()) -> tuple[int, str, str]:
    """What an answer says, up to the request's id, and what the request `named`."""
    said = answer.text.replace(answer.headers["x-request-id"], "")
    for name in named:
        said = said.replace(f"{name} collects", "… collects").replace(rf"\u201c{name}\u201d", "“…”")
    return answer.status_code, answer.headers.get("content-type", ""), re.sub(r"_[0-9a-v]{26}", "_…", said)


def test_what_is_anothers_is_not_there_by_any_route_in_answer_body_and_statements(
    cast: Cast, phones: Phones
) -> None:
    api = cast.api
    theirs = everything_of(cast, phones)
    counted = (
        "SELECT (SELECT count(*) FROM products.member_link), (SELECT count(*) FROM ledger.posting),"
        " (SELECT count(*) FROM products.consent), (SELECT count(*) FROM products.enrolment)"
    )
    own_of = {
        "bolt": api.bolt.post("/v1/members", a_person(60)).json()["id"],
        "another member": None,
        "caseworker": cast.send(cast.everyone["caseworker"], "POST", "/v1/members", json=a_person(61)).json()[
            "id"
        ],
        "manager-elsewhere": None,
        "auditor-elsewhere": None,
    }
    own_of["another member"] = cast.other
    before = api.rows(counted)
    tried, wrong = 0, []
    for entry in access.entries(api.app.routes):
        parts = re.findall(r"{(\w+)}", entry.path)
        for name, own in own_of.items():
            who = cast.everyone[name]
            if not parts or entry.open_because or entry.operation in PUBLIC or not who.allowed(entry):
                continue
            if entry.session or not set(parts) <= theirs.keys():
                continue  # operators' own sessions, and things of the back office: tried elsewhere
            ways = [{}] if own is None or parts[0] != "member" else [{}, {"member": own}]
            for given in ways:
                if given and len(parts) == 1 and entry.operation not in NAMES_IN_BODY:
                    continue  # the caller's own: nothing of another is named
                tried += 1
                wrong += compared(cast, who, entry, theirs, given)
    assert not wrong, "\n".join(wrong)
    assert tried > 100
    assert api.rows(counted) == before


NAMES_IN_BODY: Final = {"verify_member", "cancel_change", "propose_payee", "set_beneficiaries"}
"""Routes that name another thing in the body; tried below the caller's own member too."""


def compared(
    cast: Cast, who: Someone, entry: Entry, theirs: dict[str, str], given: dict[str, str]
) -> list[str]:
    """What differs between naming another's things and naming what does not exist."""
    nothing = {part: absent(part) for part in theirs}
    said = []
    for ids in (theirs | given, nothing | given):
        body = bodies(ids).get(entry.operation)
        assert body is not None or entry.method in ("GET", "DELETE"), f"{entry.operation} has no body here"
        more: dict[str, Any] = {} if body is None else {"json": body}
        with statements(cast.api) as sent:
            answer = cast.send(who, entry.method, entry.path.format_map(ids), **more)
        said.append((answer, sent))
    (real, real_sql), (made_up, made_up_sql) = said
    names = [[ids[part] for part in NAMED & ids.keys()] for ids in (theirs, nothing)]
    shown = [same(answer, named) for answer, named in zip((real, made_up), names, strict=True)]
    where = f"{who.name}{' below its own' if given else ''}: {entry.method} {entry.path}"
    wrong = []
    refusals = {404} if not given or len(re.findall("{", entry.path)) > 1 else {404, 409, 422}
    if real.status_code not in refusals:
        wrong.append(f"{where}: {real.status_code} {real.text[:200]}")
    if shown[0] != shown[1]:
        wrong.append(f"{where}: {shown[0]} is not {shown[1]}")
    if real_sql != made_up_sql:
        wrong.append(f"{where}: {len(real_sql)} statements, not {len(made_up_sql)}: {real_sql[-1][:90]}")
    return wrong


# Mass assignment

PLANTED: Final[dict[str, Any]] = {
    "id": "mem_" + "0" * 26,
    "partner": "bolt",
    "partner_id": "00000000-0000-7000-8000-000000000000",
    "member_id": "00000000-0000-7000-8000-000000000000",
    "state": "in_effect",
    "status": "posted",
    "verified": True,
    "level": "institution",
    "roles": ["administrator"],
    "scopes": ["ledger:read"],
    "approved": True,
    "approved_by": "opr_" + "0" * 26,
    "wrapped_key": "AAAA",
    "effective_at": "2020-01-01T00:00:00Z",
    "proof_id": "00000000-0000-7000-8000-000000000000",
    "__class__": {"__init__": {"__globals__": {}}},
    "__proto__": {"admin": True},
}


def objects_in(schema: Any, value: Any, schemas: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every object of a value that its schema describes with named fields, with where it is."""
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    for one in schema.get("anyOf", ()):
        if one.get("type") != "null":
            yield from objects_in(one, value, schemas, at)
    if isinstance(value, dict) and "properties" in schema:
        yield at, schema
        for name, inner in schema["properties"].items():
            if name in value:
                yield from objects_in(inner, value[name], schemas, f"{at}/{name}")
    if isinstance(value, list) and "items" in schema:
        for position, inner in enumerate(value):
            yield from objects_in(schema["items"], inner, schemas, f"{at}/{position}")


def with_field(body: dict[str, Any], at: str, name: str, value: Any) -> dict[str, Any]:
    """The body with one more field in the object at a pointer."""
    copy: dict[str, Any] = json.loads(json.dumps(body))
    found: Any = copy
    for step in at.split("/")[1:]:
        found = found[int(step)] if isinstance(found, list) else found[step]
    found[name] = value
    return copy


def test_no_body_takes_a_field_that_it_does_not_document(cast: Cast) -> None:
    api = cast.api
    document = api.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    known = bodies(absent_all() | cast.ids) | bodies_without_id(cast.member)
    callers = [
        cast.everyone[name] for name in ("acme", "caseworker", "manager", "administrator", "the member")
    ]
    tables = (
        "SELECT (SELECT count(*) FROM products.member_link), (SELECT count(*) FROM ledger.posting),"
        " (SELECT count(*) FROM products.consent), (SELECT count(*) FROM api.approval_request),"
        " (SELECT count(*) FROM api.operator), (SELECT count(*) FROM products.member_fact)"
    )
    before = api.rows(tables)
    wrong, tried = [], 0
    for entry in access.entries(api.app.routes):
        described = document["paths"].get(entry.path, {}).get(entry.method.lower(), {})
        schema = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is None or entry.operation == "receive_delivery":
            continue  # hooks ignore what they don't know, as the contract says
        assert entry.operation in known, f"{entry.operation} has no body here"
        body = known[entry.operation]
        who = next((one for one in callers if one.allowed(entry)), cast.everyone["nobody"])
        path = entry.path.format_map(absent_all() | cast.ids)
        for at, described_object in objects_in(schema, body, schemas):
            for name in PLANTED.keys() - described_object["properties"].keys():
                if described_object.get("additionalProperties") not in (False, None):
                    continue  # an object of named values: a destination, a challenge's subject
                tried += 1
                sent = with_field(body, at, name, PLANTED[name])
                answer = cast.send(who, entry.method, path, json=sent)
                pointers = [one.get("pointer") for one in answer.json().get("errors") or ()]
                if answer.status_code != 422 or f"{at}/{name}" not in pointers:
                    wrong.append(f"{entry.operation}: {at}/{name}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong[:20])
    assert tried > 500
    assert api.rows(tables) == before


# Credentials in the wrong place, and keys of another


def test_a_credential_opens_what_is_its_own_and_nothing_else(cast: Cast) -> None:
    api = cast.api
    acme, manager, member = (cast.everyone[name] for name in ("acme", "manager", "the member"))
    path = f"/v1/members/{cast.member}"
    secret = api.acme.client.client_secret
    for token in (
        secret,
        api.acme.client.client_id,
        api.webhook_secret,
        f"{acme.token}, {manager.token}",
        f"{manager.token}{acme.token}",
        f"mzn_ops_{acme.token}",
        f"Bearer {acme.token}",
        f"{acme.token}=",
        f"{acme.token}.",
    ):
        answer = api.http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, (token[:12], answer.text)
    for query in ("access_token", "token", "authorization", "api_key"):
        assert api.http.get(path, params={query: acme.token}).status_code == 401
        assert api.http.get(path, headers={"Cookie": f"{query}={acme.token}"}).status_code == 401
        assert api.http.get(path, headers={"Cookie": f"mizan_session={acme.token}"}).status_code == 401
    # a cookie beside a token lends it nothing
    both = {"Authorization": f"Bearer {member.token}", "Cookie": f"mizan_session={manager.token}"}
    assert api.http.get("/v1/ledger/accounts", headers=both).status_code == 403
    twice = [("Authorization", f"Bearer {acme.token}"), ("Authorization", f"Bearer {manager.token}")]
    assert api.http.get("/v1/ledger/accounts", headers=twice).status_code in (400, 401, 403)
    # nobody is staff by asking for it
    for scope in (
        "ledger:read",
        "approvals:write",
        "members:read approvals:write",
        "audit:read",
        "*",
        "admin",
    ):
        asked = api.acme.authenticate(scope)
        assert (asked.status_code, asked.json()["error"]) == (400, "invalid_scope"), scope


def test_an_idempotency_key_is_its_callers_own(cast: Cast) -> None:
    api = cast.api
    body = {
        "remittance_id": "SAME-1",
        "member": {"id": cast.member},
        "sent": {"amount": 80_000, "currency": "AED"},
        "received": {"amount": 300_000, "currency": "RWF"},
        "collected": {"amount": 15_000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:20:00Z",
    }
    key = {"Idempotency-Key": "the same"}
    mine = api.acme.post("/v1/remittances", body, headers=key)
    assert mine.status_code == 201
    theirs = api.bolt.post("/v1/remittances", body, headers=key)
    assert "Idempotency-Replayed" not in theirs.headers
    # acme's member is nobody to bolt: its money is recorded as nobody's, and says nothing of acme's
    assert (theirs.json()["status"], theirs.json()["member"]) == ("unallocated", None)
    assert mine.json()["id"] not in theirs.text
    unknown = api.bolt.post(
        "/v1/remittances",
        body | {"remittance_id": "SAME-2", "member": {"id": absent("member")}},
        headers={"Idempotency-Key": "another"},
    )
    shown = [one.json() for one in (theirs, unknown)]
    differing = {"id", "remittance_id", "transaction"}
    assert len({json.dumps({k: v for k, v in one.items() if k not in differing}) for one in shown}) == 1
    quotes = [
        api.bolt.post(
            "/v1/quotes",
            {name: body[name] for name in ("sent", "received", "origin_country", "destination_country")}
            | {"member": {"id": member}},
            headers={"Idempotency-Key": f"q {member}"},
        )
        for member in (cast.member, absent("member"))
    ]
    assert same(quotes[0]) == same(quotes[1])
    assert quotes[0].status_code == 404
