"""The main job as a partner lives it: from `mizan partner create` to balances, proof and reversal, over HTTP.

Bodies are the contract's own examples; where it shows a shape, the answer is compared with it field by field.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from api.embedded import EmbeddedServers
from ledger.receipts import Receipt, verify_receipt
from tests.conftest import TEMPLATE, databases_of, drop_database, settings_of
from tests.http.deployed import Client, Deployment, Partner, deployed, now, until

MONEY = {"amount": int, "currency": str}
PENDING = {"pending": 38_272, "committed": 18_000}
A_MEMBER = {
    "programme": "ejoheza",
    "phone": "+971501234567",
    "partner_reference": "A-17",
    "birth_date": "1990-05-01",
    "sex": "female",
    "origin_country": "RW",
    "residence_country": "AE",
    "facts": [{"name": "income_category", "value": 1, "from": "2026-01-01"}],
    "mandate": {"text_version": "2026-1", "language": "rw"},
}


@pytest.fixture(scope="module")
def deployment(servers: EmbeddedServers, worker_number: int) -> Iterator[Deployment]:
    name = f"end_to_end_{worker_number}"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    with deployed(settings_of(servers, databases, servers.redis_url)) as running:
        yield running
    databases.close()
    drop_database(servers, name)


@pytest.fixture(scope="module")
def acme_made(deployment: Deployment) -> dict[str, str]:
    made: dict[str, str] = deployment.mizan(
        "partner create acme --format standard --programme ejoheza --terms guaranteed"
    )
    deployment.mizan("sponsor fund gov-rw --programme ejoheza --amount 10000000")
    return made


@pytest.fixture(scope="module")
def acme(deployment: Deployment, acme_made: dict[str, str]) -> Partner:
    return deployment.partner(acme_made)


@pytest.fixture(scope="module")
def bolt(deployment: Deployment, acme_made: dict[str, str]) -> Partner:
    """A partner on the default terms: it pays later what it collects."""
    return deployment.partner(deployment.mizan("partner create bolt --programme ejoheza"))


@pytest.fixture(scope="module")
def auditor(deployment: Deployment) -> Client:
    return deployment.staff("auditor")


def rwf(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "RWF"}


def completed(remittance_id: str, member: dict[str, str], **changes: Any) -> dict[str, Any]:
    """The contract's webhook, in the programme's currency and of this minute."""
    data = {
        "remittance_id": remittance_id,
        "member": member,
        "sent": {"amount": 50000, "currency": "AED"},
        "received": {"amount": 765432, "currency": "RWF"},
        "fee": {"amount": 1500, "currency": "AED"},
        "collected": {"amount": 38272, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": now(),
        "quote_id": None,
    }
    return {"type": "remittance.completed", "timestamp": now(), "data": data | changes}


def taken_back(remittance_id: str) -> dict[str, Any]:
    data = {"remittance_id": remittance_id, "reversed_at": now(), "reason": "the sender cancelled"}
    return {"type": "remittance.reversed", "timestamp": now(), "data": data}


def expect_shape(found: Any, shape: Any, at: str = "") -> None:
    """An answer has exactly the keys and the types that a shape names."""
    if isinstance(shape, dict):
        assert isinstance(found, dict), at
        assert set(found) == set(shape), at
        for name, inner in shape.items():
            expect_shape(found[name], inner, f"{at}/{name}")
    elif isinstance(shape, list):
        assert isinstance(found, list), at
        assert found, at
        for position, one in enumerate(found):
            expect_shape(one, shape[0], f"{at}/{position}")
    else:
        assert isinstance(found, shape), f"{at}: {found!r}"
        assert not isinstance(found, bool) or shape is bool, at


BALANCES = {
    "member": str,
    "as_of": str,
    "products": [
        {
            "product": str,
            "contributed": MONEY,
            "pending": MONEY,
            "settled": MONEY,
            "held": MONEY,
            "available": MONEY,
            "locked": [{"amount": MONEY, "reason": str, "until": str | None}],
            "match": {
                "entitled": MONEY,
                "committed": MONEY,
                "unvested": MONEY,
                "vested": MONEY,
                "awaiting_funds": MONEY,
            },
        }
    ],
    "unapplied": MONEY,
    "total": MONEY,
}
REMITTANCE = {
    "id": str,
    "remittance_id": str,
    "status": str,
    "reason": str | None,
    "member": str | None,
    "received": MONEY,
    "collected": MONEY,
    "allocations": [{"product": str, "amount": MONEY, "entitled": MONEY}],
    "unapplied": MONEY,
    "transaction": str,
    "completed_at": str,
    "reversed_at": str | None,
}


def test_from_a_partner_created_to_savings_proved_and_explained(
    deployment: Deployment, acme_made: dict[str, str], auditor: Client
) -> None:
    assert list(acme_made) == ["partner", "slug", "client_id", "client_secret", "webhook_secret"]
    assert acme_made["partner"].startswith("ptn_")
    assert acme_made["webhook_secret"].startswith("whsec_")
    acme = deployment.partner(acme_made)

    registered = acme.post("/v1/members", A_MEMBER)
    member = registered["id"]
    assert member.startswith("mem_")
    assert {name: registered[name] for name in A_MEMBER if name not in ("facts", "mandate")} == {
        name: value for name, value in A_MEMBER.items() if name not in ("facts", "mandate")
    }
    acme.post(f"/v1/members/{member}/enrolments", {"product": "savings", "choice": {"percent": "5"}})

    event = completed("ACME-000123", {"id": member})
    accepted = acme.hook(event, "msg_1")
    assert accepted.status_code == 202
    expect_shape(accepted.json(), {"id": str, "duplicate": bool})
    assert accepted.json()["duplicate"] is False
    assert acme.hook(event, "msg_1").json() == accepted.json() | {"duplicate": True}

    delivery = acme.processed(accepted.json()["id"])
    assert (delivery["state"], delivery["reason"], delivery["type"]) == (
        "posted",
        None,
        "remittance.completed",
    )
    remittance = acme.remittance("ACME-000123")
    expect_shape(remittance, REMITTANCE)
    assert delivery["remittance"] == remittance["id"]
    assert remittance["id"].startswith("rmt_")
    assert remittance["transaction"].startswith("txn_")
    assert remittance["status"] == "posted"
    assert (remittance["member"], remittance["received"], remittance["collected"]) == (
        member,
        rwf(765_432),
        rwf(38_272),
    )
    # 5 % of 765,432 is 38,271.6; the match is capped at 18,000 a year
    assert remittance["allocations"] == [
        {"product": "savings", "amount": rwf(38_272), "entitled": rwf(18_000)}
    ]
    assert remittance["unapplied"] == rwf(0)

    balances = acme.balances(member)
    expect_shape(balances, BALANCES)
    expect_balances(balances, member, settled=38_272, unvested=18_000)

    statement = acme.get(f"/v1/members/{member}/statement")
    assert [(line["transaction"], line["amount"], line["balance"]) for line in statement["data"]] == [
        (remittance["transaction"], rwf(38_272), rwf(38_272))
    ]
    expect_a_receipt_that_anyone_can_check(acme, member, remittance["transaction"])
    expect_an_explanation(acme, member, remittance["id"])
    expect_match_that_vests(deployment, acme, member)
    expect_books_that_balance(deployment, auditor)


def expect_balances(
    balances: Any,
    member: str,
    *,
    pending: int = 0,
    settled: int = 0,
    committed: int = 0,
    unvested: int = 0,
    unapplied: int = 0,
) -> None:
    assert balances["member"] == member
    (savings,) = balances["products"]
    match = {name: money["amount"] for name, money in savings["match"].items()}
    assert match == {
        "entitled": committed + unvested,
        "committed": committed,
        "unvested": unvested,
        "vested": 0,
        "awaiting_funds": 0,
    }
    assert (savings["contributed"], savings["pending"], savings["settled"]) == (
        rwf(pending + settled),
        rwf(pending),
        rwf(settled),
    )
    locked = sum(one["amount"]["amount"] for one in savings["locked"])
    assert savings["held"] == rwf(0)
    assert savings["available"] == rwf(settled - locked)
    assert balances["unapplied"] == rwf(unapplied)
    assert balances["total"] == rwf(pending + settled + unvested + unapplied)


def expect_a_receipt_that_anyone_can_check(acme: Partner, member: str, transaction: str) -> None:
    path = f"/v1/members/{member}/receipts/{transaction}"

    def sealed() -> Any:
        receipt = acme.get(path)
        assert (receipt["status"] == "pending") is (receipt["proof"] is None)
        return receipt if receipt["status"] == "sealed" else None

    receipt = Receipt.from_json(until(sealed, "the transaction was sealed"))
    published = acme.http.get("/.well-known/mizan-seals").json()
    keys = {key_id: bytes.fromhex(key) for key_id, key in published["keys"].items()}
    verify_receipt(receipt, keys)
    assert receipt.proof is not None
    assert receipt.proof.seal.head.hex() in [seal["head"] for seal in published["seals"]]


def expect_an_explanation(acme: Partner, member: str, remittance: str) -> None:
    why = acme.get(f"/v1/members/{member}/explanations/{remittance}")
    assert why["subject"] == remittance
    (match,) = why["matches"]
    assert (match["matched"], match["entitled"]) == (True, 18_000)
    standing = acme.get(f"/v1/members/{member}/explanations/match:savings")
    assert standing["matches"][0]["standing"]["unvested"] == 18_000


def expect_match_that_vests(deployment: Deployment, acme: Partner, member: str) -> None:
    assert deployment.mizan("match vest")["enrolments_vested"] >= 1
    (savings,) = acme.balances(member)["products"]
    assert (savings["match"]["unvested"], savings["match"]["vested"]) == (rwf(0), rwf(18_000))
    (out,) = acme.get(f"/v1/members/{member}/explanations/withdrawal:savings")["withdrawals"]
    (retirement, small) = out["ways"]
    assert (retirement["open"], small["open"], out["available"]) == (False, False, 0)
    assert (small["opens_on"], out["match_vested"]) == (savings["locked"][0]["until"], 18_000)
    assert small["conditions"][0]["must_be"] == "at least 55"


def expect_books_that_balance(deployment: Deployment, auditor: Client) -> None:
    shape = {
        "as_of": str,
        "data": [
            {
                "fund": str,
                "currency": str,
                "accounts": [{"code": str, "kind": str, "debit": int, "credit": int}],
                "debit_total": int,
                "credit_total": int,
            }
        ],
    }
    for shown in (
        auditor.get("/v1/ledger/trial-balance"),
        auditor.get("/v1/ledger/trial-balance", as_of="2026-03-02"),
        deployment.mizan("ledger trial-balance"),
    ):
        if shown["data"]:
            expect_shape(shown, shape)
        for fund in shown["data"]:
            debited = sum(account["debit"] for account in fund["accounts"])
            credited = sum(account["credit"] for account in fund["accounts"])
            assert fund["debit_total"] == fund["credit_total"] == debited == credited
    verdict = deployment.mizan("ledger verify")
    checks = [{"name": str, "checked": int, "violations": int}]
    expect_shape(
        verdict, {"ok": bool, "transactions": int, "postings": int, "unsealed": int, "checks": checks}
    )
    assert verdict["ok"] is True
    assert {check["violations"] for check in verdict["checks"]} == {0}


def test_the_synchronous_twin_gives_what_the_hook_gives(acme: Partner) -> None:
    by_hook, by_request = acme.member(21), acme.member(22)
    event = completed("TWIN-HOOK", {"id": by_hook})
    delivery = acme.delivered(event, "msg_twin")
    answered = acme.post(
        "/v1/remittances",
        event["data"] | {"remittance_id": "TWIN-REST", "member": {"id": by_request}},
        key="twin",
    )
    assert answered == acme.remittance("TWIN-REST") == acme.get(f"/v1/remittances/{answered['id']}")
    own = ("id", "remittance_id", "member", "transaction")
    hooked = acme.remittance("TWIN-HOOK")
    assert hooked["id"] == delivery["remittance"]
    assert {k: v for k, v in hooked.items() if k not in own} == {
        k: v for k, v in answered.items() if k not in own
    }
    left, right = acme.balances(by_hook), acme.balances(by_request)
    assert left | {"member": None} == right | {"member": None}
    # the same remittance again, now by the other way, is the same remittance
    again = acme.delivered(event | {"data": answered_data(event, "TWIN-REST", by_request)}, "msg_twin_2")
    assert (again["state"], again["remittance"]) == ("duplicate", answered["id"])


def answered_data(event: dict[str, Any], remittance_id: str, member: str) -> dict[str, Any]:
    data: dict[str, Any] = event["data"] | {"remittance_id": remittance_id, "member": {"id": member}}
    return data


def test_what_was_not_paid_in_yet_is_taken_back_at_once(acme: Partner, bolt: Partner) -> None:
    for partner, owed in ((acme, {"settled": 38_272, "unvested": 18_000}), (bolt, PENDING)):
        member = partner.member(31)
        partner.delivered(completed("BACK-1", {"id": member}, collected=rwf(38_372)), "msg_back_1")
        expect_balances(partner.balances(member), member, **owed, unapplied=100)
        assert partner.delivered(taken_back("BACK-1"), "msg_back_2")["state"] == "reversed"
        reversed_ = partner.remittance("BACK-1")
        assert (reversed_["status"], reversed_["reversed_at"] is not None) == ("reversed", True)
        expect_balances(partner.balances(member), member)

        early = partner.delivered(taken_back("BACK-2"), "msg_back_3")
        assert (early["state"], early["reason"]) == ("parked", "awaiting_original")
        assert partner.delivered(completed("BACK-2", {"id": member}), "msg_back_4")["state"] == "reversed"
        expect_balances(partner.balances(member), member)


def test_a_settlement_makes_it_the_members_and_what_is_settled_is_reversed_by_a_manager(
    deployment: Deployment, bolt: Partner
) -> None:
    member = bolt.member(32)
    bolt.delivered(completed("SETTLED-1", {"id": member}), "msg_32")
    expect_balances(bolt.balances(member), member, **PENDING)
    settlement = deployment.mizan("settlement record bolt --amount 38272")
    assert (settlement["paired"], settlement["unidentified"]) == (38_272, 0)
    expect_balances(bolt.balances(member), member, settled=38_272, unvested=18_000)

    asked = bolt.delivered(taken_back("SETTLED-1"), "msg_32_back")
    assert (asked["state"], asked["reason"]) == ("parked", "reversal_needs_approval")
    assert bolt.remittance("SETTLED-1")["status"] == "posted"
    assert deployment.mizan(f"inbox replay {asked['id']} --approve") == {"replayed": 1}

    def approved() -> Any:
        shown = bolt.remittance("SETTLED-1")
        return shown if shown["status"] == "reversed" else None

    until(approved, "what a manager approved was reversed")
    expect_balances(bolt.balances(member), member)
    assert deployment.mizan("ledger verify")["ok"] is True


def test_money_of_somebody_unknown_waits_for_them_and_becomes_theirs(acme: Partner) -> None:
    phone = "+250780000041"
    waiting = acme.delivered(completed("UNKNOWN-1", {"phone": phone}), "msg_unknown")
    assert (waiting["state"], waiting["reason"]) == ("unallocated", "member_unknown")
    unallocated = acme.remittance("UNKNOWN-1")
    assert (unallocated["status"], unallocated["member"], unallocated["allocations"]) == (
        "unallocated",
        None,
        [],
    )
    assert unallocated["collected"] == rwf(38_272)
    member = acme.member(41)

    def allocated() -> Any:
        shown = acme.remittance("UNKNOWN-1")
        return shown if shown["status"] == "posted" else None

    remittance = until(allocated, "the money was allocated")
    assert remittance["member"] == member
    history = acme.get(f"/v1/deliveries/{waiting['id']}")
    assert (history["state"], history["attempts"]) == ("posted", 3)
    assert [one["state"] for one in history["history"]] == ["unallocated", "replayed", "posted"]
    assert acme.balances(member)["total"]["amount"] >= 38_272


def test_a_quote_is_what_the_remittance_that_names_it_becomes(acme: Partner) -> None:
    member = acme.member(51)
    asked = {
        "member": {"id": member},
        "sent": {"amount": 50000, "currency": "AED"},
        "received": {"amount": 765432, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
    }
    quote = acme.post("/v1/quotes", asked, key="quote")
    assert quote["id"].startswith("quo_")
    assert quote["collect"] == rwf(38_272)
    named = completed("QUOTED-1", {"id": member}, quote_id=quote["id"], collected=quote["collect"])
    assert acme.delivered(named, "msg_quoted")["state"] == "posted"
    remittance = acme.remittance("QUOTED-1")
    assert remittance["collected"] == quote["collect"]
    assert [(one["product"], one["amount"]) for one in remittance["allocations"]] == [
        (one["product"], one["amount"]) for one in quote["allocations"]
    ]
    assert [one["entitled"] for one in remittance["allocations"]] == [
        one["entitled"] for one in quote["allocations"]
    ]
    assert remittance["unapplied"] == rwf(0)


def test_the_contracts_webhook_in_its_own_currency(deployment: Deployment) -> None:
    delta = deployment.partner(deployment.mizan("partner create delta --programme mp2"))
    event = {
        "type": "remittance.completed",
        "timestamp": now(),
        "data": {
            "remittance_id": "ACME-000123",
            "member": {"phone": "+971501234567"},
            "sent": {"amount": 50000, "currency": "AED"},
            "received": {"amount": 765432, "currency": "PHP"},
            "fee": {"amount": 1500, "currency": "AED"},
            "collected": {"amount": 38272, "currency": "PHP"},
            "origin_country": "AE",
            "destination_country": "PH",
            "completed_at": now(),
            "quote_id": None,
        },
    }
    assert delta.delivered(event, "msg_1")["state"] == "unallocated"
    assert delta.remittance("ACME-000123")["collected"] == {"amount": 38272, "currency": "PHP"}
