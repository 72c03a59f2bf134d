"""Staff against each other: what is another programme's or another person's is not there, whoever has its id."""

import re

import pytest

from api import access
from tests.http.cast import Cast, assemble
from tests.http.deciding import a_transaction
from tests.http.served import Served
from tests.http.test_attacks import same, statements
from tests.http.things import absent, bodies


@pytest.fixture(scope="module")
def cast(shared_api: Served) -> Cast:
    return assemble(shared_api)


def test_requests_sessions_and_operators_of_others_are_not_there(cast: Cast) -> None:
    api = cast.api
    manager = cast.everyone["manager"]
    asked = cast.send(manager, "POST", "/v1/ledger/transactions", json=a_transaction(api))
    assert asked.status_code == 202, asked.text
    own = cast.send(manager, "GET", "/v1/session").json()
    theirs = {"approval": asked.json()["id"], "session": own["id"], "operator": own["operator"]}
    nothing = {part: absent(part) for part in theirs}
    filler = {"challenge", "change", "document", "beneficiary", "payee"}
    known = bodies({part: absent(part) for part in filler})
    wrong, tried = [], 0
    for name in (
        "manager-elsewhere",
        "auditor-elsewhere",
        "administrator-here-auditor-anywhere",
        "caseworker",
    ):
        who = cast.everyone[name]
        for entry in access.entries(api.app.routes):
            (part, *more) = re.findall(r"{(\w+)}", entry.path) or [""]
            if part not in theirs or more or not who.allowed(entry):
                continue
            if entry.operation in SEEN or (entry.operation == "get_approval" and "auditor-anywhere" in name):
                continue
            said, sent = [], []
            for ids in (theirs, nothing):
                body = {"json": known[entry.operation]} if entry.operation in known else {}
                with statements(api) as sql:
                    said.append(cast.send(who, entry.method, entry.path.format_map(ids), **body))
                sent.append(sql)
            tried += 1
            if said[0].status_code != 404 or same(said[0]) != same(said[1]):
                wrong.append(f"{name}: {entry.operation}: {same(said[0])}, {same(said[1])}")
            if sent[0] != sent[1]:
                wrong.append(
                    f"{name}: {entry.operation}: {len(sent[0])}, {len(sent[1])}: {sent[0][-1][:120]}"
                )
    assert not wrong, "\n".join(wrong)
    assert tried >= 12
    assert cast.send(manager, "GET", "/v1/session").status_code == 200
    left = cast.send(manager, "GET", f"/v1/approvals/{theirs['approval']}").json()
    assert left["state"] == "requested"


SEEN = {"get_operator"}
"""Who reads operators reads them all."""
