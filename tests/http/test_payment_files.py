"""Payment files over the API: who sees them, who fetches them, and what the bank's answer does."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import httpx
import pytest

from integrations.rails import bank_file
from integrations.rails.setting import Setting
from ledger.ids import new_id, public_id
from products.payouts import registry
from products.payouts.rails import Instruction, RailPayee
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes.registry import apply
from tests.http.cast import CATALOGUE, ELSEWHERE
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.integration.rails.bank import Bank
from tests.integration.rails.test_bank_file import OPTIONS

XML = {"Content-Type": "application/xml"}


@dataclass
class Counter:
    """The counter of a fund that pays by files: its rail, and a manager."""

    api: Served
    rail: bank_file.BankFileRail
    manager: Person
    elsewhere: Person

    def send(self, *amounts: int) -> list[Instruction]:
        payee = RailPayee("Uwimana Alice", "bank", {"account": "1", "bank_code": "BKIGRWRW", "country": "RW"})
        asked = [
            Instruction(new_id(), public_id("pay", new_id()), amount, "RWF", payee) for amount in amounts
        ]
        self.rail.submit(new_id(), asked, date(2026, 3, 2))
        return asked

    def bring(
        self, content: bytes, key: str, who: Person | None = None, rail: str = "kigali-bank"
    ) -> httpx.Response:
        headers = XML | {
            "Authorization": f"Bearer {(who or self.manager).token}",
            "Idempotency-Key": key,
        }
        return self.api.http.post(
            "/v1/payment-answers", params={"rail": rail}, content=content, headers=headers
        )


@pytest.fixture
def counter(api: Served) -> Counter:
    def rail(tx: Any, programme: UUID, slug: str, kind: str) -> registry.ConfiguredRail:
        new = NewRail(
            slug=slug,
            kind=kind,
            payee_kinds=("bank",),
            checks_payees=True,
            funded="bank",
            fee=Fee(0, 0, "fund"),
            arrival=Arrival("business_days", 1, 2, ("RW",)),
            limits=Limits(1, None, None, None, None, 1000),
            options=OPTIONS if kind == "bank_file" else {},
        )
        return registry.create(tx, programme, new, clock=api.clock)

    with api.services.worker.begin() as tx:
        here: UUID = tx.exec_driver_sql("SELECT id FROM products.programme").scalar_one()
        there = apply(tx, CATALOGUE.joinpath(f"{ELSEWHERE}.yaml").read_text(), clock=api.clock).programme_id
        made = rail(tx, here, "kigali-bank", "bank_file")
        rail(tx, here, "play", "simulator")
    setting = Setting(
        api.clock, "sandbox", "", api.services.worker, api.services.keyring, made.slug, made.currency
    )
    return Counter(
        api,
        bank_file.build(OPTIONS, {}, setting),
        person(api, "manager"),
        person(api, "manager", programmes=[there]),
    )


def test_a_manager_fetches_a_file_and_brings_the_banks_answer(counter: Counter) -> None:
    api, manager = counter.api, counter.manager
    asked = counter.send(15_000, 22_500)
    (listed,) = manager.get("/v1/payment-files").json()["data"]
    assert (listed["state"], listed["payments"], listed["control_sum"]) == ("made", 2, "37500")

    fetched = manager.get(f"/v1/payment-files/{listed['id']}/content")
    assert fetched.headers["Content-Type"] == "application/xml"
    assert fetched.headers["Cache-Control"] == "no-store"
    bank = Bank.given(fetched.content)
    assert [order.creditor for order in bank.orders] == ["Uwimana Alice"] * 2
    audited = api.rows(
        "SELECT object, detail->>'sha256' FROM ledger.audit_entry WHERE action = 'payment_file.fetched'"
    )
    assert audited == [(listed["id"], listed["sha256"])]

    said = bank.says(
        api.clock.now(), "PART", {asked[0].attempt.hex: "ACSC", asked[1].attempt.hex: "RJCT/AC04"}
    )
    brought = counter.bring(said, "one")
    assert brought.status_code == 201, brought.text
    assert brought.json() | {"id": None} == {
        "id": None,
        "duplicate": False,
        "payments": 2,
        "states": {"paid": 1, "failed": 1},
        "unread": [],
    }
    assert counter.bring(said, "one").json() == brought.json()  # the request again
    again = counter.bring(said, "two").json()  # the file again
    assert (again["id"], again["duplicate"], again["payments"]) == (brought.json()["id"], True, 0)
    assert counter.bring(said + b"\n", "one").json()["code"] == "idempotency_key_reused"
    # what nothing was known for is kept as evidence, and applied when it is known
    assert api.rows("SELECT said, source, outcome FROM products.rail_report ORDER BY said") == [
        ("failed", "file", "unmatched"),
        ("paid", "file", "unmatched"),
    ]

    shown = manager.get(f"/v1/payment-files/{listed['id']}").json()
    assert (shown["state"], shown["fetched_at"] is not None, shown["answered_at"] is not None) == (
        "part",
        True,
        True,
    )
    assert [(one["amount"]["amount"], [it["status"] for it in one["statuses"]]) for one in shown["data"]] == [
        (15_000, ["ACSC"]),
        (22_500, ["RJCT"]),
    ]
    assert "Uwimana" not in str(shown)


def test_files_are_seen_by_whose_programme_they_pay_for_and_fetched_by_managers_alone(
    counter: Counter,
) -> None:
    counter.send(1)
    counter.send(2)
    api = counter.api
    first = counter.manager.get("/v1/payment-files?limit=1&rail=kigali-bank").json()
    then = counter.manager.get(
        f"/v1/payment-files?limit=1&rail=kigali-bank&cursor={first['next_cursor']}"
    ).json()
    assert [first["data"][0]["control_sum"], then["data"][0]["control_sum"], then["next_cursor"]] == [
        "2",
        "1",
        None,
    ]
    file = first["data"][0]["id"]
    auditor = person(api, "auditor")
    assert auditor.get(f"/v1/payment-files/{file}").status_code == 200
    assert auditor.get(f"/v1/payment-files/{file}/content").status_code == 403
    assert counter.elsewhere.get("/v1/payment-files").json()["data"] == []
    for path in (f"/v1/payment-files/{file}", f"/v1/payment-files/{file}/content"):
        assert counter.elsewhere.get(path).status_code == 404
    assert api.acme.get("/v1/payment-files").status_code == 403
    assert counter.bring(b"<a/>", "x", counter.elsewhere).status_code == 404


def test_answers_that_can_not_be_taken_are_refused_and_change_nothing(counter: Counter) -> None:
    counter.send(100)
    file = counter.manager.get("/v1/payment-files").json()["data"][0]["id"]
    bank = Bank.given(counter.manager.get(f"/v1/payment-files/{file}/content").content)
    now = counter.api.clock.now()
    for number, (content, code) in enumerate(
        [
            (b"", "invalid_request"),
            (b"not xml", "payment_answer_unreadable"),
            (b'<!DOCTYPE a [<!ENTITY x "y">]><Document>&x;</Document>', "payment_answer_unreadable"),
            (bank.says(now, "ACSC", message="another"), "payment_file_unknown"),
            (bank.says(now, "ACSC", payments=2), "payment_answer_mismatch"),
        ]
    ):
        refused = counter.bring(content, f"k{number}")
        assert (refused.status_code in (409, 422), refused.json()["code"]) == (True, code)
    assert counter.bring(bank.says(now, "ACSC"), "k", rail="play").json()["code"] == "not_a_bank_file_rail"
    assert counter.bring(bank.says(now, "ACSC"), "k", rail="nowhere").status_code == 404
    assert counter.api.rows("SELECT count(*) FROM integrations.payment_answer") == [(0,)]
    # larger than any other body may be
    assert (
        counter.bring(b"<a>" + b" " * 1_000_000 + b"</a>", "large").json()["code"]
        == "payment_answer_unreadable"
    )
