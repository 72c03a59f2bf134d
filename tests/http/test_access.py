"""Every route is tried by every kind of caller, and answers as the table of scopes and roles says."""

import re
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import httpx
import pytest
from starlette.routing import Route

import tests
from api import access
from api.access import OPEN, Entry
from api.bootstrap import Services
from ledger.ids import new_id, parse_public_id, public_id
from products.members import linking, mandates, registry
from products.members.models import NewMandate
from products.remittances.partners import set_state
from tests.http.cast import ELSEWHERE, Cast, Someone, assemble
from tests.http.served import Served, a_person

PROJECT = Path(tests.__file__).parents[1]


@pytest.fixture(scope="module")
def everyone(shared_api: Served) -> Cast:
    return assemble(shared_api)


UNKNOWN: Final = public_id("xxx", UUID(int=7))
NOT_MADE: Final = {"get_close_pack"}
"""What reads a thing that nobody has made here, though all that its path names is there."""
OF_THE_MEMBER: Final = {"member", "remittance", "account", "transaction"}
"""What a path may name that is acme's member's: not there for who may not see that member."""


def walked(api: Served) -> list[Entry]:
    return access.entries(api.app.routes)


def test_every_route_of_the_application_is_judged(everyone: Cast) -> None:
    judged = {(entry.method, entry.path) for entry in walked(everyone.api)}
    served = {
        (method, route.path)
        for route in access.flat(everyone.api.app.routes)
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert judged == served
    described = everyone.api.app.openapi()["paths"]
    assert {path.replace(":path}", "}") for _, path in served} >= set(described)
    # what stands in the list of open routes is there, and open
    assert {entry.operation for entry in walked(everyone.api) if entry.open_because} == set(OPEN)


def test_each_caller_passes_or_is_refused_as_the_table_says(everyone: Cast) -> None:
    wrong = []
    for entry in walked(everyone.api):
        if entry.open_because is not None:
            continue
        for who in everyone.everyone.values():
            if entry.operation == "log_out" and who.person:
                continue  # it would
            # nothing that exists is named to what changes it, but by members, whose tokens open one member's pages alone
            named = everyone.ids if entry.method == "GET" or "member" in who.kinds else {}
            parts = {part: named.get(part, UNKNOWN) for part in re.findall(r"{(\w+)}", entry.path)}
            body: dict[str, Any] = {} if entry.method == "GET" else {"json": {}}
            answer = everyone.send(who, entry.method, entry.path.format(**parts), **body)
            meant = expected(entry, who, parts)
            if answered(answer) not in meant:
                wrong.append(
                    f"{who.name}: {entry.method} {entry.path}: {answered(answer)}, not {meant}: {answer.text[:200]}"
                )
    assert not wrong, "\n".join(wrong)


def answered(answer: httpx.Response) -> str:
    """The class of an answer: unauthorised, forbidden, hidden, or that the caller was let in."""
    code = answer.json().get("code") if "json" in answer.headers.get("content-type", "") else None
    if answer.status_code >= 500:
        return "broken"
    if answer.status_code == 404:
        return "hidden"
    return {"unauthorised": "unauthorised", "insufficient_scope": "forbidden"}.get(code or "", "let in")


def expected(entry: Entry, who: Someone, parts: dict[str, str]) -> set[str]:
    """What the table says of a caller on a route, and the caller's sight of what the path names."""
    if not who.kinds or (entry.session and not who.person):
        return {"unauthorised"}
    if not who.allowed(entry):
        return {"forbidden"}
    if parts.get("member") != UNKNOWN and "member" in parts and not who.sees_member:
        return {"hidden"}
    if entry.method != "GET":
        return {"let in", "hidden"}  # an empty body, or nothing of this id
    if (who.elsewhere and "programme" in parts) or (not who.sees_member and OF_THE_MEMBER & parts.keys()):
        return {"hidden"}
    absent = UNKNOWN in parts.values() or entry.operation in NOT_MADE
    return {"hidden", "let in"} if absent else {"let in"}


def test_staff_see_the_programmes_that_their_role_is_for(everyone: Cast) -> None:
    def listed(name: str) -> set[str]:
        answer = everyone.send(everyone.everyone[name], "GET", "/v1/programmes")
        return {one["slug"] for one in answer.json()["data"]}

    assert listed("manager") == {"ejoheza", ELSEWHERE}
    assert listed("manager-elsewhere") == {ELSEWHERE}
    assert listed("acme") == listed("caseworker") == listed("the member") == {"ejoheza"}


def test_a_caseworker_registers_members_and_sees_the_accounts_that_were_opened_to_the_organisation(
    everyone: Cast,
) -> None:
    caseworker = everyone.everyone["caseworker"]

    def saved(who: Someone, member: str) -> list[int]:
        answer = everyone.send(who, "GET", f"/v1/members/{member}/balances")
        assert answer.status_code == 200, answer.text
        return [one["contributed"]["amount"] for one in answer.json()["products"]]

    # the same person as acme's member, whom nobody has told the organisation of
    registered = everyone.send(caseworker, "POST", "/v1/members", json=a_person())
    assert registered.status_code == 201, registered.text
    here = registered.json()["id"]
    assert saved(caseworker, here) == []
    services, now = everyone.api.services, everyone.api.clock.now()
    with services.worker.begin() as tx:
        theirs, mine = (
            registry.find(tx, services.keyring, parse_public_id("mem", one))
            for one in (everyone.member, here)
        )
        offer = linking.offer(tx, services.keyring, theirs, now)
        linking.join(tx, services.keyring, mine, offer.code, now)
    assert saved(caseworker, here) == []  # to be one person is not to consent
    with services.worker.begin() as tx:
        consent = NewMandate("2026-1", "rw", now, purpose="casework", proof=new_id())
        mandates.give(tx, services.keyring, mine, consent, now)
    assert saved(caseworker, here) == saved(everyone.everyone["acme"], everyone.member) == [15000]
    # what acme calls its member is still nobody's but acme's
    assert everyone.send(caseworker, "GET", f"/v1/members/{everyone.member}").status_code == 404
    with services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE products.consent SET withdrawn_at = %s WHERE purpose = 'casework'", (now,))
    assert saved(caseworker, here) == []

    set_state_of_organisation(services, "disabled")
    assert everyone.send(caseworker, "GET", f"/v1/members/{here}").status_code == 401
    set_state_of_organisation(services, "active")
    assert everyone.send(caseworker, "GET", f"/v1/members/{here}").status_code == 200


def set_state_of_organisation(services: Services, state: Literal["active", "disabled"]) -> None:
    with services.worker.begin() as tx:
        set_state(tx, "ngo", state)


def test_the_page_about_access_is_current() -> None:
    assert (PROJECT / "docs" / "reference" / "access.md").read_text("utf-8") == access.render(), (
        "write it again: python -m api.access > docs/reference/access.md"
    )


def test_a_route_without_a_guard_and_without_a_reason_is_found(everyone: Cast) -> None:
    def bare() -> None:
        """Says nothing."""

    with pytest.raises(access.Unlisted):
        access.entries([Route("/new", bare)])
