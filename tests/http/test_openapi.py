"""The OpenAPI document tells the truth: Schemathesis, as every kind of caller, finds no 5xx and nothing undescribed."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import access
from api.v1.opening import MEDIA_TYPE as SPREADSHEET
from ledger.ids import new_id
from tests.conftest import FUZZ
from tests.http.cast import Cast, Someone, assemble
from tests.http.hooked import Signer
from tests.http.served import Served

EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


# a workbook is bytes to whoever sends it
schemathesis.serializer.alias(SPREADSHEET, "application/octet-stream")

CALLERS = (
    "acme",
    "the member",
    "manager",
    "administrator",
    "caseworker",
    "auditor",
    "manager client",
    "nobody",
)
ENDS_THE_CALLER = frozenset({"log_out", "end_session"})
"""Tried last, or callers would be nobody for the rest."""


@pytest.fixture(scope="module")
def cast(shared_api: Served) -> Cast:
    """Everybody, with a member and a remittance."""
    return assemble(shared_api)


def send(case: Any, who: Someone, api: Served, signer: Signer) -> Any:
    """Send a generated case as a caller; a hook's, signed as its partner would."""
    operation = case.operation.definition.raw["operationId"]
    if operation == "receive_delivery":
        case.headers.clear()
        prepared = requests.Request(**case.as_transport_kwargs(base_url=api.url)).prepare()
        body = prepared.body or b""
        raw = body.encode() if isinstance(body, str) else bytes(body)  # type: ignore[arg-type]  # never a file here
        headers = signer.headers(raw, f"msg_{new_id()}")
        return case.call(headers=headers)
    headers = {"Authorization": f"Bearer {who.token}"} if who.token is not None else {}
    if operation in ("issue_token", "revoke_token"):
        client = api.acme.client
        headers = {"Authorization": requests.auth._basic_auth_str(client.client_id, client.client_secret)}
    return case.call(headers=headers)


def ending(operation: Any) -> tuple[bool, bool]:
    """What ends the member's link comes late, or it would leave nothing to find; what ends the session, last."""
    return operation.definition.raw["operationId"] in ENDS_THE_CALLER, operation.method.upper() == "DELETE"


@pytest.mark.timeout(180 + 120 * FUZZ)
def test_no_answer_is_undocumented_or_a_5xx(cast: Cast) -> None:
    api = cast.api
    load_all_checks()
    schema = schemathesis.openapi.from_dict(api.http.get("/openapi.json").json())
    schema.config.update(base_url=api.url)
    ids = cast.ids | {"slug": "acme", "subject": cast.ids["remittance"]}
    turns = cycle(cast.everyone[name] for name in CALLERS)
    signer = Signer(api.acme.partner or new_id(), "acme", api.webhook_secret, api.clock, api.http)
    wrong: list[str] = []
    tried: dict[str, set[str]] = {}
    operations: list[Any] = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    for operation in sorted(operations, key=ending):
        if operation.definition.raw["operationId"] == "disable_operator":
            continue  # one of everybody; `test_schemathesis_roles` and `test_operators` have it
        cases = st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )

        @settings(
            max_examples=EXAMPLES * FUZZ,
            deadline=None,
            derandomize=FUZZ == 1,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases, real=st.booleans())
        def holds(case: Any, real: bool) -> None:
            who, name = next(turns), case.operation.definition.raw["operationId"]
            tried.setdefault(name, set()).add(who.name)
            known = {part: value for part, value in ids.items() if part in (case.path_parameters or {})}
            if known and (real or "slug" in known):
                case.path_parameters.update(known)
            try:
                case.validate_response(send(case, who, api, signer), checks=CHECKS)
            except FailureGroup as failed:
                wrong.append(f"{name} as {who.name}: {failed.exceptions}")

        holds()
    assert not wrong, "\n".join(wrong)
    document = schema.raw_schema["paths"]
    named = {one["operationId"] for methods in document.values() for one in methods.values()}
    assert named - {"disable_operator"} == tried.keys()
    takes_something = {name for name, callers in tried.items() if len(callers) == len(CALLERS)}
    assert len(takes_something) > len(named) * 0.9  # where nothing can be varied, one request is all there is


def examples_in(value: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every example beside its schema, and where."""
    if isinstance(value, list):
        for position, inner in enumerate(value):
            yield from examples_in(inner, f"{at}/{position}")
    if not isinstance(value, dict):
        return
    if isinstance(value.get("examples"), list) and not at.endswith("/properties"):
        for example in value["examples"]:
            yield at, {key: inner for key, inner in value.items() if key != "examples"}, example
    if "schema" in value and "example" in value:
        yield at, value["schema"], value["example"]
    if "schema" in value and isinstance(value.get("examples"), dict):
        for example in value["examples"].values():
            yield at, value["schema"], example["value"]
    for name, inner in value.items():
        yield from examples_in(inner, f"{at}/{name}")


def test_examples_are_what_their_schemas_say(cast: Cast) -> None:
    document = cast.api.http.get("/openapi.json").json()
    found = list(examples_in(document))
    assert len(found) > 100
    wrong = []
    for at, schema, example in found:
        whole = schema | {"components": document["components"]}
        problems = Draft202012Validator(whole).iter_errors(example)
        wrong += [f"{at}: {example!r}: {problem.message}" for problem in problems]
    assert not wrong, "\n".join(wrong)


def test_every_operation_documents_what_it_refuses_and_who_opens_it(cast: Cast) -> None:
    document = cast.api.http.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    wrong = []
    for entry in access.entries(cast.api.app.routes):
        operation = document["paths"].get(entry.path, {}).get(entry.method.lower())
        if operation is None:
            assert entry.open_because is not None, f"{entry.path} is in no document"
            continue
        need = {"400", "429", "503"}
        if entry.open_because is None:
            need |= {"401"} | ({"403"} if entry.scopes else set())
        if entry.scopes and "{" in entry.path:
            need |= {"404"}
        if "requestBody" in operation or operation.get("parameters"):
            need |= {"422"} if entry.open_because is None else set()
        if any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ())):
            need |= {"409"}
        missing = need - operation["responses"].keys()
        security = operation.get("security", [])
        if missing or (bool(security) != (entry.open_because is None) and entry.path not in PROOF_OF_ITS_OWN):
            wrong.append(f"{entry.operation}: no {sorted(missing)}; security {security}")
        assert {name for one in security for name in one} <= schemes.keys(), entry.operation
    assert not wrong, "\n".join(wrong)


PROOF_OF_ITS_OWN = {"/oauth/token", "/oauth/revoke", "/hooks/{slug}"}
"""Open to whoever proves themselves in the request, in a way that the document describes."""
