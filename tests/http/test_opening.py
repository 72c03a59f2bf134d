"""Opening balances over HTTP: one manager loads and asks, another approves, the worker posts; other programmes' staff see nothing."""

import httpx

from api import opening
from products.programmes.loader import catalogue
from products.programmes.registry import apply
from tests.http.deciding import approver, books_hold, code_of, filer, requested
from tests.http.operators import Person, person
from tests.http.served import Served

__all__ = ["approver", "books_hold", "filer"]

LOADS = "/v1/opening-loads"
BALANCED = "account,amount\nbank,1000\nfees_payable,1000\n"


def loaded(who: Person, content: str, programme: str = "ejoheza") -> httpx.Response:
    return who.api.http.post(
        f"{LOADS}?programme={programme}&effective_on=2026-02-28&name=old.csv",
        content=content,
        headers={"Content-Type": "text/csv", "Authorization": f"Bearer {who.token}"},
    )


def test_two_managers_open_the_books_and_take_them_back(api: Served, filer: Person, approver: Person) -> None:
    first = loaded(filer, BALANCED.replace("bank,1000", "bank,1500"))
    assert first.status_code == 201, first.text
    assert first.json()["control"][0]["of_load"]["amount"] == 500
    path = f"{LOADS}/{first.json()['id']}"
    asked = requested(filer.post(f"{path}/commit", {"remark": "closed there"}, key="k1"))
    assert code_of(filer.approve(asked["id"])) == "second_person_required"
    assert approver.approve(asked["id"]).status_code == 200
    assert filer.get(path).json()["state"] == "committing"
    assert opening.work_on_all(api.services, seconds_max=60) == 1
    assert filer.get(path).json()["state"] == "committed"
    refused = filer.post(f"{path}/final", None, key="k2")
    assert code_of(refused) == "opening_not_zero"
    assert "500 RWF" in refused.json()["detail"]
    back = requested(filer.post(f"{path}/take-back", {"remark": "wrong"}, key="k3"))
    assert approver.approve(back["id"]).status_code == 200
    opening.work_on_all(api.services, seconds_max=60)
    assert filer.get(path).json()["state"] == "taken_back"

    second = loaded(filer, BALANCED).json()
    path = f"{LOADS}/{second['id']}"
    approver.approve(requested(filer.post(f"{path}/commit", {"remark": "right"}, key="k4"))["id"])
    opening.work_on_all(api.services, seconds_max=60)
    final = filer.post(f"{path}/final", None, key="k5")
    assert (final.status_code, final.json()["state"]) == (200, "final")
    assert code_of(filer.post(f"{path}/take-back", {"remark": "late"}, key="k6")) == "opening_state"
    assert [one["state"] for one in filer.get(LOADS).json()["data"]] == ["final", "taken_back"]


def test_faults_are_told_and_other_programmes_see_nothing(api: Served, filer: Person) -> None:
    faulty = loaded(filer, "account,amount\nbank,=1\nnothing,2\n")
    assert code_of(faulty, 422) == "invalid_opening"
    assert "B2: this is no amount" in faulty.json()["detail"]
    assert "A3: no such account" in faulty.json()["detail"]
    assert code_of(loaded(filer, "\x00", "ejoheza"), 422) == "invalid_opening"
    mine = loaded(filer, BALANCED).json()["id"]
    with api.services.worker.begin() as tx:
        elsewhere = apply(tx, catalogue()["pm-sym"], clock=api.clock).programme_id
    stranger = person(api, "manager", programmes=[elsewhere])
    assert code_of(stranger.get(f"{LOADS}/{mine}"), 404) == "not_found"
    assert stranger.get(LOADS).json()["data"] == []
    assert code_of(stranger.post(f"{LOADS}/{mine}/commit", {"remark": "x"}, key="s"), 404) == "not_found"
    assert code_of(stranger.post(f"{LOADS}/{mine}/final", None, key="t"), 404) == "not_found"
    assert code_of(loaded(stranger, BALANCED), 404) == "not_found"
