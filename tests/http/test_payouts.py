"""Payouts over the API: a partner asks, the member's proof releases, the simulated rail pays, and everybody reads their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.settings import Settings
from integrations.rails import sandbox
from integrations.rails.work import RailWork
from ledger.clock import FixedClock
from ledger.ids import new_id
from tests.conftest import Databases
from tests.http.served import Served
from tests.http.test_proofs import PAYEE, WAIT, App, Phones, passed, serving

MONEY = {"amount": 5_000, "currency": "RWF"}


@dataclass
class Scene:
    """A member of 65 with savings and a payee in effect."""

    api: Served
    app: App
    payee: str
    work: RailWork

    def ask(self, amount: int = 5_000, **changes: Any) -> httpx.Response:
        """Ask for a payout as the partner."""
        body = {
            "member": self.app.member,
            "payee": self.payee,
            "amount": {"amount": amount, "currency": "RWF"},
            "product": "savings",
        } | changes
        return self.post("/v1/payouts", body)

    def asked(self, amount: int = 5_000) -> dict[str, Any]:
        """A payout that waits for the member."""
        answer = self.ask(amount)
        assert answer.status_code == 201, answer.text
        self.work.submit()
        return self.read(answer.json()["id"])

    def read(self, payout: str) -> dict[str, Any]:
        """The payout as it stands."""
        found: dict[str, Any] = self.api.acme.get(f"/v1/payouts/{payout}").json()
        return found

    def approval(self, payout: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The body of an approval, with the member's proof over exactly that."""
        body = {
            "payee": payout["payee"],
            "amount": payout["amount"],
            "fee": payout["fee"]["amount"],
        } | changes
        return body | {"proof": self.app.code("payout", {**body, "payout": payout["id"]})}

    def post(self, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> httpx.Response:
        """POST as the partner under an Idempotency-Key."""
        return self.api.acme.post(path, body, headers={"Idempotency-Key": key or new_id().hex})


@pytest.fixture
def scene(settings: Settings, databases: Databases, clock: FixedClock, tmp_path: Any) -> Iterator[Scene]:
    phones = Phones(tmp_path / "messages.jsonl")
    with serving(settings, databases, clock, phones) as api:
        app = App(api.acme, phones, birth_date="1960-05-01")
        assert app.post("enrolments", {"product": "savings"}).status_code == 201
        paid = {
            "remittance_id": "R-1",
            "member": {"id": app.member},
            "sent": {"amount": 50_000, "currency": "AED"},
            "received": {"amount": 400_000, "currency": "RWF"},
            "collected": {"amount": 20_000, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": clock.now().isoformat(),
        }
        answer = api.acme.post("/v1/remittances", paid, headers={"Idempotency-Key": "one"})
        assert answer.status_code == 201, answer.text
        released = app.post("payees", PAYEE | {"proof": app.code("payee", PAYEE)})
        services = api.services
        with databases.worker.begin() as tx:
            assert sandbox.ensure_rails(tx, clock) == 1
        passed(api, WAIT)
        yield Scene(
            api, app, released.json()["id"], RailWork(databases.worker, services.books, services.rails)
        )


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    return problem


def test_a_partner_asks_and_only_the_members_proof_over_exactly_that_releases(scene: Scene) -> None:
    answer = scene.ask()
    asked = answer.json()
    assert answer.status_code == 201
    assert (asked["state"], asked["rail"], asked["to_payee"]) == ("requested", "simulated-ejoheza", MONEY)
    assert asked["fee"] == {"amount": {"amount": 0, "currency": "RWF"}, "bearer": "fund"}
    balances = scene.api.acme.get(f"{scene.app.path}/balances").json()["products"][0]
    assert (balances["held"]["amount"], balances["available"]["amount"]) == (5_000, 15_000)
    scene.work.submit()
    asked = scene.read(asked["id"])
    assert (asked["state"], asked["payee_name"]) == ("awaiting_member", "matches")
    path = f"/v1/payouts/{asked['id']}/approval"
    # what was proven is not what is sent; what is sent is not what is asked for
    body = scene.approval(asked)
    refused(scene.post(path, body | {"accepts_name": True}), 422, "proof_refused")
    less = scene.approval(asked, amount={"amount": 4_999, "currency": "RWF"})
    refused(scene.post(path, less), 409, "approval_differs")
    told = scene.app.phones.codes(scene.app.phone)[-1]
    assert "(5,000 RWF > 3456)" in told
    wrong = body | {"proof": body["proof"] | {"code": f"{(int(body['proof']['code']) + 1) % 10**6:06}"}}
    refused(scene.post(path, wrong), 422, "proof_refused")
    # another partner and another member's token see nothing
    refused(scene.api.bolt.get(f"/v1/payouts/{asked['id']}"), 404, "not_found")
    refused(
        scene.api.bolt.post(path, body, headers={"Idempotency-Key": "bolt"}),
        404,
        "not_found",
    )
    approved = scene.post(path, body)
    assert (approved.status_code, approved.json()["state"]) == (200, "approved")
    assert scene.work.submit() == 1
    paid = scene.read(asked["id"])
    assert [one["state"] for one in paid["history"]] == [
        "requested",
        "awaiting_member",
        "approved",
        "submitted",
        "paid",
    ]
    assert paid["parts"][0]["transaction"].startswith("txn_")
    refused(scene.post(f"/v1/payouts/{asked['id']}/cancel"), 409, "payout_state")


def test_refusals_have_stable_codes_and_say_what_would_be_had(scene: Scene) -> None:
    problem = refused(scene.ask(20_001), 409, "payout_not_available")
    assert (problem["reason"], problem["available"]) == ("not_enough", {"amount": 20_000, "currency": "RWF"})
    refused(scene.ask(payee=f"pye_{'0' * 26}"), 404, "not_found")
    refused(scene.ask(member=f"mem_{'0' * 26}"), 404, "not_found")
    refused(scene.ask(0), 422, "invalid_request")
    kenyan = {"member": scene.app.member, "payee": scene.payee, "amount": MONEY | {"currency": "KES"}}
    refused(scene.post("/v1/payouts", kenyan), 422, "invalid_request")
    refused(scene.ask(rail="elsewhere"), 409, "no_rail")
    refused(scene.api.acme.post("/v1/payouts", {}), 422, "invalid_request")
    body = {"member": scene.app.member, "payee": scene.payee, "amount": MONEY, "product": "savings"}
    refused(scene.api.acme.post("/v1/payouts", body), 400, "idempotency_key_required")
    once, again = scene.post("/v1/payouts", body, "same"), scene.post("/v1/payouts", body, "same")
    assert (once.json(), again.headers["Idempotency-Replayed"]) == (again.json(), "true")
    cancelled = scene.post(f"/v1/payouts/{once.json()['id']}/cancel")
    assert (cancelled.json()["state"], cancelled.json()["reason"]) == ("cancelled", "cancelled_by_partner")
    listed = scene.api.acme.get("/v1/payouts?state=cancelled").json()["data"]
    assert [one["id"] for one in listed] == [once.json()["id"]]
    assert scene.api.bolt.get("/v1/payouts").json()["data"] == []
    assert scene.api.acme.get(f"/v1/payouts?member={scene.app.member}&limit=1").json()["next_cursor"] is None


def test_five_wrong_codes_end_a_challenge_and_ten_minutes_do(scene: Scene) -> None:
    asked = scene.asked()
    path, body = f"/v1/payouts/{asked['id']}/approval", scene.approval(asked)
    right = body["proof"]["code"]
    for guess in range(5):
        wrong = f"{(int(right) + 1 + guess) % 10**6:06}"
        refused(scene.post(path, body | {"proof": body["proof"] | {"code": wrong}}), 422, "proof_refused")
    refused(scene.post(path, body), 422, "proof_refused")
    late = scene.approval(asked)
    passed(scene.api, timedelta(minutes=10))
    refused(scene.post(path, late), 422, "proof_refused")
    assert scene.read(asked["id"])["state"] == "awaiting_member"


def test_rails_are_read_by_staff_and_their_hooks_take_nothing_unproven(scene: Scene) -> None:
    http = scene.api.http
    for method in ("POST", "PUT", "GET"):
        for slug in ("simulated-ejoheza", "nowhere"):
            refused(http.request(method, f"/hooks/rails/{slug}/x/y", content=b"{}"), 401, "signature_invalid")
    refused(http.post("/hooks/rails/nowhere/x", content=b"x" * (256 * 1024 + 1)), 413, "content_too_large")
    refused(scene.api.acme.get("/v1/rails"), 403, "insufficient_scope")
    scene.api.auditor.authenticate()
    (rail,) = scene.api.auditor.get("/v1/rails").json()["data"]
    assert (rail["slug"], rail["breaker"]["state"], rail["queued"]) == ("simulated-ejoheza", "closed", 0)
    assert scene.api.auditor.get("/v1/rails/simulated-ejoheza/reports").json()["data"] == []
    refused(scene.api.auditor.get("/v1/rails/nowhere"), 404, "not_found")
