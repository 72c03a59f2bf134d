"""What partners pay by bank transfer, from their remittance to the bank's statement, and money whose sender is found later."""

from datetime import timedelta

from api import bank_statements
from api.reconciling import reconcile
from ledger.clock import FixedClock
from ledger.ids import public_id
from products.programmes.loader import catalogue
from products.programmes.registry import apply
from products.reconciliation import by_hand
from tests.http.operators import person
from tests.http.served import Served
from tests.http.test_bank_statements import mt940, send, with_account
from tests.http.test_idempotency import a_member, a_remittance


def test_a_transfer_on_the_statement_settles_and_a_receipt_does_when_its_sender_is_found(
    api: Served, clock: FixedClock
) -> None:
    manager = with_account(api)
    member = a_member(api)

    def owed() -> int:
        """What acme has collected and not paid in."""
        ((amount,),) = api.rows(
            "SELECT coalesce(sum(amount), 0)::bigint FROM products.contribution WHERE owed"
        )
        return int(amount)

    for name, collected in (("ACME-1", 15_000), ("ACME-2", 12_000)):
        sent = api.acme.post(
            "/v1/remittances",
            a_remittance(
                member,
                remittance_id=name,
                collected={"amount": collected, "currency": "RWF"},
                completed_at=(clock.now() - timedelta(days=int(name[-1]))).isoformat(),
            ),
            headers={"Idempotency-Key": name},
        )
        assert sent.status_code == 201, sent.text
    assert owed() == 27_000

    imported = send(
        api,
        manager,
        mt940(("C15000,", "ACME EXCHANGE"), ("C13000,", "UNKNOWN"), closing="C260302RWF29000,"),
    )
    assert imported.status_code == 201, imported.text
    reconcile(api.services)
    assert owed() == 12_000

    with api.services.worker.begin() as tx:
        line = tx.exec_driver_sql("SELECT id FROM ledger.statement_line WHERE amount = 13000").scalar_one()
        by_hand.receive(tx, api.services.books, line, remark="who is it?", actor="opr_test")
    (receipt,) = manager.get("/v1/receipts", params={"bank_account": "kigali-savers"}).json()["data"]
    assert (receipt["line"], receipt["state"]) == (public_id(bank_statements.LINE, line), "open")
    path = f"/v1/receipts/{receipt['id']}/identification"
    assert manager.call("POST", path, {"partner": "acme"}).json()["code"] == "idempotency_key_required"
    found = manager.call("POST", path, {"partner": "acme", "days": ["2026-02-28"]}, key="found")
    assert found.status_code == 201, found.text
    assert (found.json()["paired"]["amount"], found.json()["unidentified"]["amount"]) == (12_000, 1_000)
    again = manager.call("POST", path, {"partner": "acme", "days": ["2026-02-28"]}, key="found")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (found.json(), "true")
    closed = manager.call("POST", path, {"partner": "acme"}, key="other")
    assert (closed.status_code, closed.json()["code"]) == (409, "receipt_closed")
    assert owed() == 0
    (receipt,) = manager.get("/v1/receipts").json()["data"]
    assert (receipt["state"], receipt["settlement"]) == ("identified", found.json()["settlement"])
    assert manager.get("/v1/reconciliation-suggestions").json()["data"] == []


def test_receipts_are_the_programmes_own_staffs(api: Served) -> None:
    with_account(api)
    with api.services.worker.begin() as tx:
        other = apply(tx, catalogue()["three-for-one"], clock=api.clock).programme_id
    elsewhere = person(api, "manager", programmes=[other])
    assert elsewhere.get("/v1/receipts").json()["data"] == []
    assert elsewhere.get("/v1/receipts", params={"bank_account": "kigali-savers"}).status_code == 404
