"""The OpenAPI document tells the truth: Schemathesis finds no 5xx and no answer that it does not describe."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.settings import Settings
from ledger.clock import FixedClock
from ledger.ids import new_id
from tests.conftest import Databases
from tests.http.hooked import Signer
from tests.http.served import Caller, Served, a_person, served

EXAMPLES = 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def world(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """An API that takes as many requests as Schemathesis sends, with one member and one remittance."""
    with served(settings, databases.worker, clock, requests_per_minute=10_000_000) as running:
        yield running


def real_ids(world: Served) -> dict[str, str]:
    """Ids that exist, for paths: made-up ones end at 404 alone."""
    member = world.acme.post("/v1/members", a_person()).json()["id"]
    world.acme.post(f"/v1/members/{member}/enrolments", {"product": "savings"})
    remittance = world.acme.post(
        "/v1/remittances",
        {
            "remittance_id": "ACME-000123",
            "member": {"id": member},
            "sent": {"amount": 80000, "currency": "AED"},
            "received": {"amount": 300000, "currency": "RWF"},
            "collected": {"amount": 15000, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": "2026-03-02T09:20:00Z",
        },
        headers={"Idempotency-Key": "first"},
    ).json()
    account = world.auditor.get("/v1/ledger/accounts").json()["data"][0]["id"]
    return {
        "member": member,
        "remittance": remittance["id"],
        "transaction": remittance["transaction"],
        "account": account,
        "subject": remittance["id"],
        "programme": "ejoheza",
        "slug": "acme",
    }


def send(case: Any, caller: Caller, signer: Signer) -> Any:
    """Send a generated case with a token; a hook's, signed as its partner would."""
    operation = case.operation.definition.raw["operationId"]
    if operation == "receive_delivery":
        case.headers.clear()
        prepared = requests.Request(**case.as_transport_kwargs(base_url=str(caller.http.base_url))).prepare()
        body = prepared.body or b""
        raw = body.encode() if isinstance(body, str) else body
        headers = signer.headers(raw, f"msg_{new_id()}")
        return case.call(headers=headers)
    headers = {"Authorization": f"Bearer {caller.token}"}
    if operation == "issue_token":
        headers = {
            "Authorization": requests.auth._basic_auth_str(
                caller.client.client_id, caller.client.client_secret
            )
        }
    return case.call(headers=headers)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("who", ["acme", "auditor"])
def test_no_answer_is_undocumented_or_a_5xx(world: Served, who: str) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_dict(world.http.get("/openapi.json").json())
    schema.config.update(base_url=world.url)
    ids = real_ids(world)
    caller: Caller = getattr(world, who)
    signer = Signer(world.acme.partner or new_id(), "acme", world.webhook_secret, world.clock, world.http)
    tried = set()
    operations = [found.ok() for found in schema.get_all_operations()]
    # what ends the member's link comes last, or it would leave nothing to find for the others
    for operation in sorted(operations, key=lambda one: one.method.upper() == "DELETE"):
        tried.add(operation.definition.raw["operationId"])
        cases = st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases, real=st.booleans())
        def holds(case: Any, real: bool) -> None:
            known = {name: value for name, value in ids.items() if name in (case.path_parameters or {})}
            if known and (real or "slug" in known):
                case.path_parameters.update(known)
            case.validate_response(send(case, caller, signer), checks=CHECKS)

        holds()
    assert {"receive_delivery", "register_member", "send_remittance", "issue_token"} <= tried
