"""What two managers decide about payouts over HTTP: releasing one above its rail's limit, and what became of an unknown one."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.approvals.service import CONFIRMED_WITHIN
from integrations.rails import directory
from ledger.ids import new_id
from products.payouts import registry
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes import registry as programmes
from tests.http.deciding import books_hold, code_of, requested
from tests.http.persons import Person, person
from tests.http.served import Served
from tests.http.test_payouts import Scene, scene

__all__ = ["api", "books_hold", "scene"]

ABOVE = 3_000
"""What two managers release more than, in minor units."""
UNKNOWN = {"paid": 2_041, "failed": 2_043}
"""By what became of them: amounts that the simulator does not answer for in time."""
LIMITS = Limits(
    amount_min=1, amount_max=None, per_member_day=None, per_day=None, release_above=ABOVE, queue_max=100
)


@pytest.fixture
def api(scene: Scene) -> Served:
    """The API that the scene is served by, for what looks at the books after each test."""
    return scene.api


def guarded(scene: Scene) -> None:
    """A rail above whose limit two managers release."""
    kept, _ = directory.validated("simulator", {}, {})
    new = NewRail(
        slug="guarded",
        kind="simulator",
        payee_kinds=("mobile_money",),
        checks_payees=False,
        funded="bank",
        fee=Fee(0, 0, "fund"),
        arrival=Arrival("minutes", 0, 5, ()),
        limits=LIMITS,
        options=kept,
    )
    with scene.api.services.worker.begin() as tx:
        registry.create(tx, programmes.find(tx, "ejoheza"), new, clock=scene.api.clock)


def approved_by_member(scene: Scene, amount: int) -> dict[str, Any]:
    """A payout over the guarded rail that its member has approved."""
    asked = scene.ask(amount, rail="guarded").json()
    assert asked["state"] == "awaiting_member", asked
    answer = scene.post(f"/v1/payouts/{asked['id']}/approval", scene.approval(asked))
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def keyed(who: Person, path: str, body: dict[str, Any]) -> httpx.Response:
    """A manager's POST under a key of its own."""
    return who.call("POST", path, body, headers={"Idempotency-Key": new_id().hex})


def managers(scene: Scene) -> tuple[Person, Person]:
    """Two, of whom the first asks and the second decides."""
    first, second = (person(scene.api, "manager", email=f"{name}@fund.example") for name in ("keza", "aline"))
    return first, second


def held(scene: Scene) -> tuple[int, int]:
    """What is held of the member's savings, and what is available."""
    shown = scene.api.acme.get(f"{scene.app.path}/balances").json()["products"][0]
    return shown["held"]["amount"], shown["available"]["amount"]


def test_above_the_limit_two_managers_release_with_a_fresh_code_or_refuse(scene: Scene) -> None:
    guarded(scene)
    (first, second) = managers(scene)
    small = approved_by_member(scene, ABOVE)
    assert small["state"] == "approved"
    large, refused = approved_by_member(scene, 5_000), approved_by_member(scene, 4_000)
    assert {one["state"] for one in (large, refused)} == {"awaiting_operators"}
    assert scene.work.submit() == 1  # the small one alone
    assert held(scene) == (9_000, 8_000)

    path, why = f"/v1/payouts/{large['id']}/release", {"remark": "she called back"}
    assert code_of(keyed(first, f"/v1/payouts/{small['id']}/release", why)) == "payout_state"
    assert code_of(keyed(first, f"/v1/payouts/pay_{'0' * 26}/release", why), 404) == "not_found"
    assert code_of(scene.post(path, why), 403) == "insufficient_scope"
    asked = requested(keyed(first, path, why))
    assert (asked["kind"], asked["object"]) == ("payout_release", large["id"])
    decision = f"/v1/approvals/{asked['id']}/approval"
    assert first.confirm().status_code == 204
    assert code_of(keyed(first, decision, {"remark": "me too"})) == "second_person_required"
    scene.api.clock.advance(CONFIRMED_WITHIN)
    assert code_of(keyed(second, decision, {"remark": "seen"})) == "confirmation_required"
    assert scene.read(large["id"])["state"] == "awaiting_operators"
    assert second.confirm().status_code == 204
    done = keyed(second, decision, {"remark": "seen"})
    assert done.status_code == 200, done.text
    assert scene.read(large["id"])["state"] == "approved"
    assert scene.work.submit() == 1
    paid = scene.read(large["id"])
    assert [one["state"] for one in paid["history"]] == [
        "awaiting_member",
        "awaiting_operators",
        "approved",
        "submitted",
        "paid",
    ]

    asked = requested(keyed(first, f"/v1/payouts/{refused['id']}/release", why))
    answer = keyed(second, f"/v1/approvals/{asked['id']}/refusal", {"remark": "not she"})
    assert answer.status_code == 200, answer.text
    given_up = scene.read(refused["id"])
    assert (given_up["state"], given_up["reason"]) == ("cancelled", "refused_by_operators")
    assert held(scene) == (0, 12_000)
    assert scene.work.submit() == 0


def test_what_was_found_out_of_an_unknown_payout_is_recorded_by_two(scene: Scene) -> None:
    guarded(scene)
    first, second = managers(scene)
    theirs = {finding: approved_by_member(scene, amount)["id"] for finding, amount in UNKNOWN.items()}
    assert code_of(keyed(first, f"/v1/payouts/{theirs['paid']}/resolution", found("paid"))) == "payout_state"
    scene.work.submit()
    for finding, payout in theirs.items():
        path = f"/v1/payouts/{payout}/resolution"
        assert scene.read(payout)["state"] == "unknown"
        assert code_of(keyed(first, path, found("perhaps")), 422) == "invalid_request"
        assert code_of(keyed(first, path, found(finding) | {"evidence": ""}), 422) == "invalid_request"
        asked = requested(keyed(first, path, found(finding)))
        assert asked["payload"]["evidence"] == found(finding)["evidence"]
        assert scene.read(payout)["state"] == "unknown"
        decision = f"/v1/approvals/{asked['id']}/approval"
        assert first.confirm().status_code == second.confirm().status_code == 204
        assert code_of(keyed(first, decision, {"remark": "me too"})) == "second_person_required"
        done = keyed(second, decision, {"remark": "seen"})
        assert done.status_code == 200, done.text
        assert scene.read(payout)["state"] == finding
    # what failed is the member's again, and nobody asks or sends any more
    assert held(scene) == (0, 20_000 - UNKNOWN["paid"])
    scene.api.clock.advance(timedelta(days=1))
    assert (scene.work.ask(), scene.work.submit()) == (0, 0)


def found(finding: str) -> dict[str, str]:
    return {"finding": finding, "evidence": "the bank's letter of 3 March, file 2026/118"}
