"""Remittances over HTTP: sent once however often, read, reversed; and what an Idempotency-Key promises."""

import threading
from datetime import timedelta
from typing import Any

import httpx

from api.idempotency import purge
from tests.http.served import Caller, Served, a_person


def a_member(caller: Caller, number: int = 1) -> str:
    """A registered member in the savings product; its id."""
    member: str = caller.post("/v1/members", a_person(number)).json()["id"]
    enrolled = caller.post(
        f"/v1/members/{member}/enrolments", {"product": "savings", "choice": {"percent": "5"}}
    )
    assert enrolled.status_code == 201, enrolled.text
    return member


def a_remittance(member: str, **changes: Any) -> dict[str, Any]:
    """RWF 300,000 of which RWF 15,000 was collected."""
    return {
        "remittance_id": "ACME-000123",
        "member": {"id": member},
        "sent": {"amount": 80000, "currency": "AED"},
        "received": {"amount": 300000, "currency": "RWF"},
        "collected": {"amount": 15000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:20:00Z",
    } | changes


def send(caller: Caller, body: dict[str, Any], key: str = "k1") -> httpx.Response:
    """Send a remittance under an Idempotency-Key."""
    return caller.post("/v1/remittances", body, headers={"Idempotency-Key": key})


def test_a_remittance_is_sent_read_and_reversed(api: Served) -> None:
    member = a_member(api.acme)
    sent = send(api.acme, a_remittance(member))
    assert sent.status_code == 201, sent.text
    body = sent.json()
    assert body["status"] == "posted"
    assert body["member"] == member
    assert body["allocations"][0]["product"] == "savings"
    assert body["allocations"][0]["amount"] == {"amount": 15000, "currency": "RWF"}
    assert body["transaction"].startswith("txn_")
    assert api.acme.get(f"/v1/remittances/{body['id']}").json() == body
    found = api.acme.get("/v1/remittances", params={"remittance_id": "ACME-000123"}).json()
    assert found == {"data": [body], "next_cursor": None}
    assert api.bolt.get(f"/v1/remittances/{body['id']}").status_code == 404
    assert api.bolt.get("/v1/remittances", params={"remittance_id": "ACME-000123"}).json()["data"] == []


def test_a_repeat_gets_the_first_answer_and_has_no_effect(api: Served) -> None:
    remittance = a_remittance(a_member(api.acme))
    first = send(api.acme, remittance)
    again = send(api.acme, dict(reversed(remittance.items())))
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    other_key = send(api.acme, remittance, key="k2")
    assert (other_key.status_code, other_key.json()["id"]) == (200, first.json()["id"])
    assert api.rows("SELECT count(*) FROM ledger.transaction WHERE kind LIKE 'remittance%%'") == [(1,)]
    stored = api.rows("SELECT sealed_body FROM api.idempotent_answer")
    assert all(b"ACME-000123" not in bytes(row[0]) for row in stored)


def test_a_key_is_required_and_stands_for_one_request(api: Served) -> None:
    member = a_member(api.acme)
    without = api.acme.post("/v1/remittances", a_remittance(member))
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_required")
    too_long = send(api.acme, a_remittance(member), key="k" * 256)
    assert (too_long.status_code, too_long.json()["code"]) == (400, "idempotency_key_required")
    assert send(api.acme, a_remittance(member)).status_code == 201
    other = send(api.acme, a_remittance(member, remittance_id="ACME-2"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # another client's key of the same text is another key
    assert send(api.bolt, a_remittance(a_member(api.bolt))).status_code == 201


def test_a_refused_request_leaves_its_key_free(api: Served) -> None:
    member = a_member(api.acme)
    refused = send(api.acme, a_remittance(member, destination_country="PH"))
    assert (refused.status_code, refused.json()["reason"]) == (422, "corridor_not_served")
    assert send(api.acme, a_remittance(member)).status_code == 201


def test_two_requests_with_one_key_at_once_have_one_effect(api: Served) -> None:
    member = a_member(api.acme)
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=api.url, timeout=30) as other:

        def go(client: httpx.Client) -> None:
            caller = Caller(client, api.acme.client, api.acme.partner, api.acme.token)
            answers.append(send(caller, a_remittance(member), key="race"))

        threads = [threading.Thread(target=go, args=(client,)) for client in (api.http, other) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) <= {201, 409}
    assert codes[0] == 201
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "idempotency_key_in_use"
    }
    assert api.rows("SELECT count(*) FROM products.remittance") == [(1,)]


def test_a_known_remittance_with_other_content_is_a_conflict(api: Served) -> None:
    member = a_member(api.acme)
    send(api.acme, a_remittance(member))
    other = send(api.acme, a_remittance(member, sent={"amount": 1, "currency": "AED"}), key="k2")
    assert (other.status_code, other.json()["code"]) == (409, "remittance_conflict")


def test_lists_go_on_from_a_cursor_that_belongs_to_them(api: Served) -> None:
    member = a_member(api.acme)
    for number in range(3):
        send(api.acme, a_remittance(member, remittance_id=f"R-{number}"), key=f"k{number}")
    first = api.acme.get("/v1/remittances", params={"limit": 2}).json()
    assert [one["remittance_id"] for one in first["data"]] == ["R-0", "R-1"]
    cursor = first["next_cursor"]
    second = api.acme.get("/v1/remittances", params={"limit": 2, "cursor": cursor}).json()
    assert [one["remittance_id"] for one in second["data"]] == ["R-2"]
    assert second["next_cursor"] is None
    stolen = (
        api.bolt.get("/v1/remittances", params={"cursor": cursor}),
        api.acme.get("/v1/deliveries", params={"cursor": cursor}),
        api.acme.get("/v1/remittances", params={"cursor": cursor, "remittance_id": "R-1"}),
        api.acme.get("/v1/remittances", params={"cursor": cursor[:-2]}),
        api.acme.get("/v1/remittances", params={"cursor": "!!"}),
    )
    for answer in stolen:
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_an_impossible_remittance_is_refused_with_its_reason(api: Served) -> None:
    member = a_member(api.acme)
    for change, reason in (
        ({"completed_at": "2031-01-01T00:00:00Z"}, "time_in_the_future"),
        ({"completed_at": "1999-01-01T00:00:00Z"}, "time_too_long_ago"),
        ({"received": {"amount": 300000, "currency": "PHP"}, "collected": None}, "currency_not_served"),
        ({"collected": {"amount": 300001, "currency": "RWF"}}, "collected_exceeds_received"),
        ({"collected": None}, "collected_missing"),
    ):
        answer = send(api.acme, a_remittance(member, **change))
        assert (answer.status_code, answer.json().get("reason")) == (422, reason), answer.text


def test_staff_read_every_partners_remittances_and_send_none(api: Served) -> None:
    remittance = send(api.acme, a_remittance(a_member(api.acme))).json()
    assert api.auditor.get(f"/v1/remittances/{remittance['id']}").json() == remittance
    refused = send(api.auditor, a_remittance("mem_x"))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    transaction = api.auditor.get(f"/v1/ledger/transactions/{remittance['transaction']}").json()
    assert sum(posting["amount"]["amount"] for posting in transaction["postings"]) >= 15000
    balance = api.auditor.get("/v1/ledger/trial-balance").json()["data"]
    assert balance
    assert all(fund["debit_total"] == fund["credit_total"] for fund in balance)
    assert api.acme.get("/v1/ledger/trial-balance").status_code == 403
    accounts = api.auditor.get("/v1/ledger/accounts", params={"code": "member_savings"}).json()["data"]
    assert [one["posted"]["currency"] for one in accounts] == ["RWF"]
    listed = api.auditor.get("/v1/ledger/transactions", params={"limit": 1}).json()
    assert listed["data"][0]["id"] == remittance["transaction"]


def test_a_quote_says_what_to_collect_and_binds_the_remittance_that_names_it(api: Served) -> None:
    member = a_member(api.acme)
    asked = {
        "member": {"phone": "+250780000001"},
        "sent": {"amount": 80000, "currency": "AED"},
        "received": {"amount": 300000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
    }
    quote = api.acme.post("/v1/quotes", asked, headers={"Idempotency-Key": "q"})
    assert quote.status_code == 201, quote.text
    offer = quote.json()
    assert offer["member"] == member
    assert offer["collect"] == {"amount": 15000, "currency": "RWF"}
    assert offer["collect_sent"] == {"amount": 4000, "currency": "AED"}
    assert offer["allocations"][0]["entitled"]["amount"] == 15000
    replayed = api.acme.post("/v1/quotes", asked, headers={"Idempotency-Key": "q"})
    assert replayed.json() == offer
    named = a_remittance(
        member, collected=None, quote_id=offer["id"], completed_at=api.clock.now().isoformat()
    )
    sent = send(api.acme, named, key="r")
    assert (sent.status_code, sent.json()["collected"]) == (201, {"amount": 15000, "currency": "RWF"})
    refused = api.acme.post(
        "/v1/quotes", asked | {"destination_country": "PH"}, headers={"Idempotency-Key": "q2"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "quote_refused")
    assert refused.json()["reason"] == "corridor_not_served"
    nobody = asked | {"member": {"phone": "+250780000009"}}
    assert api.acme.post("/v1/quotes", nobody, headers={"Idempotency-Key": "q3"}).status_code == 404


def test_a_member_sees_balances_statement_receipt_and_why(api: Served) -> None:
    member = a_member(api.acme)
    remittance = send(api.acme, a_remittance(member)).json()
    balances = api.acme.get(f"/v1/members/{member}/balances").json()
    (savings,) = balances["products"]
    assert savings["contributed"] == {"amount": 15000, "currency": "RWF"}
    assert savings["pending"]["amount"] + savings["settled"]["amount"] == 15000
    match = savings["match"]
    parts = ("committed", "unvested", "vested", "awaiting_funds")
    assert match["entitled"]["amount"] == 15000 == sum(match[part]["amount"] for part in parts)
    past = api.acme.get(f"/v1/members/{member}/balances", params={"as_of": "2026-03-01"}).json()
    assert past["products"][0]["contributed"]["amount"] == 0
    part = "pending" if savings["pending"]["amount"] else "settled"
    statement = api.acme.get(f"/v1/members/{member}/statement", params={"part": part}).json()
    assert [line["transaction"] for line in statement["data"]] == [remittance["transaction"]]
    assert statement["data"][0]["balance"]["amount"] == 15000
    receipt = api.acme.get(f"/v1/members/{member}/receipts/{remittance['transaction']}").json()
    assert (receipt["status"], receipt["proof"]) == ("pending", None)
    why = api.acme.get(f"/v1/members/{member}/explanations/{remittance['id']}").json()
    assert why["matches"][0]["matched"] is True
    standing = api.acme.get(f"/v1/members/{member}/explanations/match:savings").json()
    assert standing["matches"][0]["entitled"] == 15000
    for path in (
        "balances",
        "statement",
        f"receipts/{remittance['transaction']}",
        "explanations/match:savings",
    ):
        assert api.bolt.get(f"/v1/members/{member}/{path}").status_code == 404
    stranger = a_member(api.acme, 2)
    other = api.acme.get(f"/v1/members/{stranger}/receipts/{remittance['transaction']}")
    assert other.status_code == 404


def test_a_reversal_takes_a_remittance_back_once(api: Served) -> None:
    member = a_member(api.acme)
    remittance = send(api.acme, a_remittance(member)).json()
    taken_back = {"reversed_at": "2026-03-02T09:25:00Z", "reason": "the sender cancelled"}
    path = f"/v1/remittances/{remittance['id']}/reversal"
    answers = [api.acme.post(path, taken_back, headers={"Idempotency-Key": key}) for key in ("a", "a", "b")]
    for answer in answers:
        assert answer.status_code in (200, 409), answer.text
        if answer.status_code == 200:
            assert answer.json()["status"] == "reversed"
        else:
            assert answer.json()["code"] == "approval_required"
    assert api.bolt.post(path, taken_back, headers={"Idempotency-Key": "a"}).status_code == 404


def test_first_answers_are_forgotten_after_thirty_days_and_not_before(api: Served) -> None:
    send(api.acme, a_remittance(a_member(api.acme)))
    kept_until = api.clock.now() + timedelta(days=30)
    with api.services.worker.begin() as tx:
        assert purge(tx, kept_until) == 0
        assert purge(tx, kept_until + timedelta(seconds=1)) == 1
