"""Payees: proposed by a partner, released by the member, usable 72 hours later."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from products.members import payees, waiting
from products.members.models import Member
from products.members.payees import InvalidPayee, NewPayee, Payee, PayeeNotUsable, TooManyPayees
from products.payouts.payees import refused, standings
from tests.conftest import Databases
from tests.integration.members.builders import speak_for
from tests.integration.members.proving import HOURS_72, PUBLIC_URL, Proving
from tests.racing import at_once

ALINE = NewPayee("Aline Uwase", "mobile_money", {"phone": "+250 788 123 456", "operator": "MTN"})
BANK = NewPayee("Aline Uwase", "bank", {"iban": "GB82 WEST 1234 5698 7654 32"})


@pytest.fixture
def proving(databases: Databases) -> Proving:
    return Proving.on(databases)


def propose(proving: Proving, member: Member, payee: NewPayee = ALINE, *, released: bool = True) -> Payee:
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        return payees.propose(
            tx,
            proving.world.keyring,
            member,
            payee,
            released=released,
            public_url=PUBLIC_URL,
            at=proving.clock.now(),
        )


def usable(proving: Proving, member: Member, payee: Payee) -> Payee:
    """The payee, if a payout to it would be taken."""
    at = proving.clock.now()
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        found = payees.one_of(tx, proving.world.keyring, member, payee.id, at)
        standing = standings(tx, [payee.id], at)[payee.id]
    if standing.refusal is not None:
        raise refused(standing)
    return found


def test_a_payee_is_usable_72_hours_after_the_member_released_it(proving: Proving) -> None:
    member = proving.member()
    proposed = propose(proving, member, released=False)
    assert (proposed.state, proposed.effective_at) == ("proposed", None)
    assert proposed.destination == {"phone": "+250788123456", "operator": "MTN"}
    proving.clock.advance(timedelta(days=30))  # a proposal never ripens by itself
    with pytest.raises(PayeeNotUsable, match="proposed"):
        usable(proving, member, proposed)
    with proving.databases.worker.begin() as tx:
        assert waiting.notices_of(tx, member) == []
    released = propose(proving, member)
    assert (released.id, released.state) == (proposed.id, "waiting")
    proving.clock.advance(HOURS_72 - timedelta(seconds=1))
    with pytest.raises(PayeeNotUsable, match="waits"):
        usable(proving, member, released)
    assert propose(proving, member).effective_at == released.effective_at
    proving.clock.advance(timedelta(seconds=1))
    assert usable(proving, member, released).name == "Aline Uwase"
    with proving.databases.worker.begin() as tx:
        assert [one.kind for one in waiting.notices_of(tx, member)] == ["payee"]


def test_a_payee_that_the_old_contact_stopped_is_never_paid(proving: Proving) -> None:
    member = proving.member()
    payee = propose(proving, member)
    assert payee.change_id is not None
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        waiting.cancel(tx, proving.world.keyring, member, payee.change_id, proving.clock.now())
    proving.clock.advance(HOURS_72)
    with pytest.raises(PayeeNotUsable, match="cancelled"):
        usable(proving, member, payee)
    again = propose(proving, member)
    assert (again.id != payee.id, again.state) == (True, "waiting")


def test_anything_else_about_a_payee_is_another_payee(proving: Proving) -> None:
    member = proving.member()
    first = propose(proving, member)
    for other in (
        replace(ALINE, name="Eve"),
        replace(ALINE, destination={"phone": "+250788123456"}),
        replace(ALINE, destination={"phone": "+250788123457", "operator": "MTN"}),
        BANK,
    ):
        assert propose(proving, member, other, released=False).state == "proposed"
    assert propose(proving, member).id == first.id
    made: list[object] = []
    card = NewPayee("Aline", "card", {"token": "acct_1"})
    at_once(*[lambda: made.append(propose(proving, member, card).id)] * 4)
    assert len(set(made)) == 1


def test_a_removed_payee_is_gone_at_once_and_the_member_is_told(proving: Proving) -> None:
    member = proving.member()
    payee, proposal = propose(proving, member), propose(proving, member, BANK, released=False)
    proving.clock.advance(HOURS_72)
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        for one in (payee, proposal):
            payees.remove(tx, proving.world.keyring, member, one.id, proving.clock.now())
        assert payees.payees_of(tx, proving.world.keyring, member, proving.clock.now()) == []
        assert [one.kind for one in waiting.notices_of(tx, member)] == ["payee_removed", "payee"]
    with pytest.raises(NotFound):
        usable(proving, member, payee)


@pytest.mark.parametrize(
    "bad",
    [
        replace(BANK, destination={"iban": "GB82 WEST 1234 5698 7654 33"}),
        replace(BANK, destination={"iban": "XX00"}),
        replace(BANK, destination={"account": "123"}),
        replace(BANK, destination={}),
        replace(ALINE, destination={"phone": "0788"}),
        replace(ALINE, destination={"phone": "+250788123456", "iban": "GB82WEST12345698765432"}),
        NewPayee("A", "card", {"token": "t", "number": "4242424242424242"}),
    ],
)
def test_where_no_money_could_go_is_refused(bad: NewPayee) -> None:
    with pytest.raises(InvalidInput):
        payees.checked(bad)


def test_an_iban_is_kept_in_one_spelling_and_recognised_by_its_end() -> None:
    kept = payees.checked(BANK)
    assert kept.destination == {"iban": "GB82WEST12345698765432"}
    assert (payees.tail_of(kept), payees.tail_of(payees.checked(ALINE))) == ("5432", "3456")
    with pytest.raises(InvalidPayee, match="iban or account, bank_code, country"):
        payees.checked(replace(BANK, destination={"account": "1"}))


def test_names_and_destinations_rest_encrypted_and_another_partner_sees_none(proving: Proving) -> None:
    member = proving.member()
    payee = propose(proving, member)
    with proving.databases.owner.begin() as tx:
        stored = tx.execute(text("SELECT p::text FROM products.payee p")).scalar_one()
    for secret in ("Aline", "788123456", b"Aline".hex(), b"788123456".hex()):
        assert secret not in stored
    other = proving.member(1, partner=proving.world.bolt)
    with pytest.raises(NotFound):
        usable(proving, other, payee)
    with proving.databases.api.begin() as tx:
        speak_for(tx, proving.world.bolt)
        assert tx.execute(text("SELECT count(*) FROM products.payee")).scalar_one() == 0


def test_a_beneficiary_has_to_be_the_members(proving: Proving) -> None:
    with pytest.raises(NotFound, match="beneficiary"):
        propose(proving, proving.member(), replace(ALINE, beneficiary_id=new_id()))


def test_a_member_has_twenty_payees_at_most(proving: Proving) -> None:
    member = proving.member()
    for number in range(payees.PAYEES_MAX):
        propose(proving, member, replace(ALINE, name=f"Aline {number}"), released=False)
    with pytest.raises(TooManyPayees):
        propose(proving, member, BANK)
