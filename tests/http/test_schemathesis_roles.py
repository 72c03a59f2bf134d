"""As each kind of caller, Schemathesis follows the document's links from answer to answer, over all that they reach.

No answer is a 5xx, and none says what the document does not. What the whole suite can afford is seeded and short;
``MIZAN_TESTS_FUZZ=20`` looks at twenty times as much, with new values each time.
"""

from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.schemas import OpenApiSchema

from api import access
from api.auth.scopes import for_members
from ledger.ids import new_id, public_id
from tests.conftest import FUZZ
from tests.http.cast import Cast, Someone, assemble
from tests.http.served import Served, a_person
from tests.http.test_openapi import CHECKS

CALLERS = (
    "acme",
    "the member",
    "manager",
    "administrator",
    "caseworker",
    "auditor",
    "auditor client",
    "nobody",
)
SCENARIOS = 5
ONCE = settings(
    max_examples=2,  # of which the first is the simplest one
    stateful_step_count=15,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
NUMBERS = count(1000)
ENDS_THE_CALLER = frozenset({"log_out", "end_session", "change_password", "disable_operator"})
"""After these a caller is nobody; what nobody gets is tried as such."""


@pytest.fixture(scope="module")
def cast(shared_api: Served) -> Cast:
    """Everybody."""
    return assemble(shared_api)


def good_bodies(member: str, number: int) -> dict[str, Any]:
    """Bodies that are accepted: made-up ones know no programme and no product, and then nothing would follow."""
    money = {
        "sent": {"amount": 80_000, "currency": "AED"},
        "received": {"amount": 300_000, "currency": "RWF"},
    }
    way = {"member": {"id": member}, "origin_country": "AE", "destination_country": "RW"}
    return {
        "register_member": a_person(number),
        "enrol_member": {"product": "savings"},
        "create_quote": money | way,
        "send_remittance": money
        | way
        | {
            "remittance_id": f"ACME-{number}",
            "collected": {"amount": 15_000, "currency": "RWF"},
            "completed_at": "2026-03-02T09:20:00Z",
        },
        "give_mandate": {"text_version": "2026-1", "language": "rw"},
        "start_challenge": {"purpose": "consent", "subject": {}},
        "record_document": {"type": "passport", "country": "RW", "number": f"PC{number}"},
        "propose_payee": {"name": "Aline", "rail": "mobile_money", "destination": {"phone": "+250788123456"}},
    }


class Following:
    """What every scenario of one caller has in common."""

    cast: Cast
    who: Someone
    token: str | None
    member: str

    def setup(self) -> None:
        """A member of the scenario's own: what is withdrawn or ended in one is there in the next."""
        one = type(self)
        api = one.cast.api
        one.member = api.acme.post("/v1/members", a_person(next(NUMBERS))).json()["id"]
        one.token = one.who.token
        if "member" in one.who.kinds:
            one.token = api.services.tokens.issue(
                subject=one.member,
                client_id=api.acme.client.client_id,
                actor=api.acme.client.client_id,
                scopes=frozenset(for_members()),
            )

    def before_call(self, case: Any) -> None:
        """Of four bodies, three that are accepted; members' own tokens see their own pages."""
        one = type(self)
        number = next(NUMBERS)
        good = good_bodies(one.member, number).get(case.operation.definition.raw["operationId"])
        if good is not None and number % 4:
            case.body = good
            case.media_type = "application/json"
            if "Idempotency-Key" in case.headers:
                case.headers["Idempotency-Key"] = public_id("try", new_id())
        if "member" in one.who.kinds and "member" in case.path_parameters and number % 8:
            case.path_parameters["member"] = one.member

    def get_call_kwargs(self, case: Any) -> dict[str, Any]:  # noqa: ARG002  what a state machine is asked
        """Their token."""
        token = type(self).token
        return {"headers": {"Authorization": f"Bearer {token}"} if token else {}}


@pytest.mark.timeout(60 + 60 * FUZZ)
@pytest.mark.parametrize("name", CALLERS)
def test_whatever_follows_an_answer_is_as_the_document_says(cast: Cast, name: str) -> None:
    load_all_checks()
    who = cast.everyone[name]
    seen: dict[str, set[int]] = {}
    schema = schemathesis.openapi.from_dict(cast.api.http.get("/openapi.json").json())
    schema.config.update(base_url=cast.api.url)
    entries = access.entries(cast.api.app.routes)
    # what opens nothing to this caller is tried one by one (`test_openapi`): here the way goes on
    open_to = [one.operation for one in entries if who.allowed(one) or not who.kinds]
    reached = schema.include(operation_id=sorted(set(open_to) - ENDS_THE_CALLER))
    assert isinstance(reached, OpenApiSchema)

    wrong: list[str] = []

    class Scenario(Following, reached.as_state_machine()):  # type: ignore[misc]  # a class made of the document
        def validate_response(self, response: Response, case: Any, **_: Any) -> None:
            operation = case.operation.definition.raw["operationId"]
            seen.setdefault(operation, set()).add(response.status_code)
            try:
                case.validate_response(response, checks=CHECKS)
            except FailureGroup as found:
                wrong.append(f"{operation}: {response.status_code} {response.text[:300]}: {found.exceptions}")

    Scenario.cast, Scenario.who = cast, who
    seeds = range(SCENARIOS) if FUZZ == 1 else [new_id().int for _ in range(SCENARIOS * FUZZ)]
    for number in seeds:
        # What an answer holds is never twice the same, so a scenario can't be repeated, and is not: Hypothesis says that
        # it may not go on with what it knows (`FlakyStrategyDefinition`), and the next begins from nothing.
        with suppress(FlakyStrategyDefinition):
            seed(number)(Scenario).run(settings=ONCE)
    assert not wrong, "\n".join(wrong)
    opened = {status for statuses in seen.values() for status in statuses if status < 300}
    assert bool(opened) == bool(who.kinds), seen
