"""The member's proof over the API: what members do through a partner's app, and what a partner can't do without them."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import CodeSenderKind, Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.served import Caller, Served, a_person, served
from tests.http.signing import App as MemberApp
from tests.integration.members.proving import Key, base64url, code_in, link_in
from tests.patience import eventually

PAYEE = {
    "name": "Aline Uwase",
    "rail": "mobile_money",
    "destination": {"phone": "+250788123456", "operator": "MTN"},
}
WAIT = timedelta(hours=72)
NEW = "+250789999999"


class Phones:
    """Every message that was sent, by the phone that got it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def messages(self, phone: str) -> list[str]:
        """What a phone got, oldest first."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [line["text"] for line in lines if line["to"] == phone]

    def codes(self, phone: str) -> list[str]:
        """The messages that begin with a code; notices come when they come."""
        return [text for text in self.messages(phone) if text[:6].isdigit()]

    def latest(self, phone: str, count: int, *, codes: bool = False) -> str:
        """The message that makes it `count`; sending comes after the answer."""

        def got() -> list[str]:
            return self.codes(phone) if codes else self.messages(phone)

        eventually(lambda: len(got()) >= count)
        assert len(got()) == count
        return got()[-1]


class App:
    """A partner's app on one member's phone."""

    def __init__(self, partner: Caller, phones: Phones, number: int = 1, **changes: Any) -> None:
        self.partner = partner
        self.phones = phones
        self.phone = f"+25078{number:07d}"
        answer = partner.post("/v1/members", a_person(number, **changes))
        assert answer.status_code == 201, answer.text
        self.member = answer.json()["id"]

    @property
    def path(self) -> str:
        """Where the member is."""
        return f"/v1/members/{self.member}"

    def challenge(self, purpose: str, subject: dict[str, Any], **more: Any) -> httpx.Response:
        """Ask for a challenge."""
        return self.partner.post(f"{self.path}/challenges", {"purpose": purpose, "subject": subject, **more})

    def code(self, purpose: str, subject: dict[str, Any], phone: str | None = None) -> dict[str, str]:
        """A proof by the code that the member reads on their phone and types."""
        phone = phone or self.phone
        before = len(self.phones.codes(phone))
        answer = self.challenge(purpose, subject)
        assert answer.status_code == 201, answer.text
        code = code_in(self.phones.latest(phone, before + 1, codes=True))
        return {"challenge": answer.json()["id"], "code": code}

    def signature(self, purpose: str, subject: dict[str, Any], device: str, key: Key) -> dict[str, str]:
        """A proof by a device."""
        answer = self.challenge(purpose, subject, method="device")
        assert answer.status_code == 201, answer.text
        signature = base64url(key.sign(answer.json()["to_sign"].encode()))
        return {"challenge": answer.json()["id"], "device": device, "signature": signature}

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """POST below the member."""
        return self.partner.post(f"{self.path}/{path}", body)


@pytest.fixture
def phones(tmp_path: Path) -> Phones:
    return Phones(tmp_path / "messages.jsonl")


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock, phones: Phones) -> Iterator[Served]:
    with serving(settings, databases, clock, phones) as running:
        yield running


@contextmanager
def serving(settings: Settings, databases: Databases, clock: FixedClock, phones: Phones) -> Iterator[Served]:
    with served(
        settings, databases.worker, clock, code_sender=CodeSenderKind.FILE, code_file=phones.path
    ) as running:
        yield running


def passed(api: Served, wait: timedelta) -> None:
    """Let time pass, and get new tokens: the old ones are dead by then."""
    api.clock.advance(wait)
    for caller in (api.acme, api.bolt):
        caller.authenticate()


def refused(answer: httpx.Response, code: str = "proof_refused") -> bool:
    assert answer.json().get("code") == code, answer.text
    return True


def test_a_member_releases_a_payee_by_a_code_then_by_a_device(api: Served, phones: Phones) -> None:
    app, key = App(api.acme, phones), Key()
    proposed = app.post("payees", PAYEE)
    assert (proposed.status_code, proposed.json()["state"]) == (201, "proposed")
    released = app.post("payees", PAYEE | {"proof": app.code("payee", PAYEE)}).json()
    assert (released["id"], released["state"]) == (proposed.json()["id"], "waiting")
    assert "3456" in phones.messages(app.phone)[0]
    assert "uwishyurwa mushya" in phones.latest(app.phone, 2)  # the notice, in the language of the mandate

    device = {"name": "Tecno Spark", "key": key.jwk}
    registered = app.post("devices", device | {"proof": app.code("device", device)})
    assert (registered.status_code, registered.json()["state"]) == (201, "waiting")
    assert refused(app.challenge("payee", PAYEE, method="device"), "no_way_to_prove")
    passed(api, WAIT)
    assert api.acme.get(f"{app.path}/payees").json()["data"][0]["state"] == "in_effect"
    bank = {"name": "Aline Uwase", "rail": "bank", "destination": {"iban": "GB82WEST12345698765432"}}
    proof = app.signature("payee", bank, registered.json()["id"], key)
    assert app.post("payees", bank | {"proof": proof}).json()["state"] == "waiting"
    kinds = [one["kind"] for one in api.acme.get(f"{app.path}/notices").json()["data"]]
    assert kinds == ["payee", "device", "payee"]
    listed = api.acme.get(f"{app.path}/devices").json()["data"]
    assert [(one["name"], one["state"], one["key"]) for one in listed] == [
        ("Tecno Spark", "in_effect", key.jwk)
    ]
    assert api.acme.call("DELETE", f"{app.path}/devices/{listed[0]['id']}").status_code == 204
    assert refused(app.challenge("payee", PAYEE, method="device"), "no_way_to_prove")


def test_a_partner_proves_nothing_without_the_member(api: Served, phones: Phones) -> None:
    app = App(api.acme, phones, 1)
    accomplice, elsewhere = App(api.acme, phones, 2), App(api.bolt, phones, 1)
    theirs = PAYEE | {"destination": {"phone": "+250780000666"}}

    # it guesses
    challenge = app.challenge("payee", PAYEE).json()["id"]
    right = code_in(phones.latest(app.phone, 1))
    guesses = [f"{(int(right) + n) % 1_000_000:06}" for n in range(1, 8)]
    for guess in guesses:
        refused(app.post("payees", PAYEE | {"proof": {"challenge": challenge, "code": guess}}))
    refused(app.post("payees", PAYEE | {"proof": {"challenge": challenge, "code": right}}))

    # it changes what the member was told of, after the code was sent
    proof = app.code("payee", PAYEE)
    for changed in (theirs, PAYEE | {"name": "Eve"}, PAYEE | {"rail": "card", "destination": {"token": "t"}}):
        refused(app.post("payees", changed | {"proof": proof}))
    # uses it for another purpose, another member, another partner's member
    device = {"name": "Eve's", "key": Key().jwk}
    refused(app.post("devices", device | {"proof": proof}))
    refused(accomplice.post("payees", PAYEE | {"proof": proof}))
    refused(elsewhere.post("payees", PAYEE | {"proof": proof}))
    assert api.acme.get(f"{app.path}/payees").json()["data"] == []

    # takes what the member gave it once, and gives it again
    proof = app.code("payee", PAYEE)
    assert app.post("payees", PAYEE | {"proof": proof}).status_code == 201
    refused(app.post("payees", PAYEE | {"proof": proof}))

    # proves by a phone of its own, or leaves the old phone's proof out
    new = {"phone": accomplice.phone}
    confirmed = app.code("new_phone", {"phone": NEW}, NEW)
    assert app.post("phone", {"phone": NEW, "phone_proof": confirmed}).json()["code"] == "invalid_request"
    refused(app.post("phone", {"phone": NEW, "phone_proof": confirmed, "proof": confirmed}))
    own = accomplice.code("phone", new)
    refused(app.post("phone", new | {"phone_proof": own, "proof": own}))
    # signs by a device that is not the member's, or not yet
    key = Key()
    mine = {"name": "Eve's", "key": key.jwk}
    registered = accomplice.post("devices", mine | {"proof": accomplice.code("device", mine)}).json()
    passed(api, WAIT)
    challenge = app.challenge("payee", theirs).json()
    signature = base64url(key.sign(challenge["to_sign"].encode()))
    stolen = {"challenge": challenge["id"], "device": registered["id"], "signature": signature}
    refused(app.post("payees", theirs | {"proof": stolen}))
    assert [one["name"] for one in api.acme.get(f"{app.path}/payees").json()["data"]] == ["Aline Uwase"]
    for path in ("devices", "payees", "changes", "notices"):
        assert api.bolt.get(f"{app.path}/{path}").status_code == 404
    assert api.bolt.post(f"{app.path}/challenges", {"purpose": "export"}).status_code == 404


def test_a_phone_is_not_bombed(api: Served, phones: Phones) -> None:
    app, other = App(api.acme, phones, 1), App(api.bolt, phones, 1)
    answers = [app.challenge("export", {}) for _ in range(7)]
    assert [one.status_code for one in answers] == [201] * 5 + [429] * 2
    assert refused(answers[-1], "too_many_challenges")
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 601
    phones.latest(app.phone, 5)
    passed(api, timedelta(minutes=10))
    codes = [app.challenge("export", {}) for _ in range(5)]
    passed(api, timedelta(minutes=10))
    assert refused(app.challenge("export", {}), "too_many_challenges")
    phones.latest(app.phone, 10)
    for _ in range(5):
        assert other.challenge("export", {}).status_code == 201
    phones.latest(app.phone, 15)
    # the phone has had enough: nothing is sent, and the answer doesn't tell
    passed(api, timedelta(minutes=10))
    quiet = other.challenge("export", {})
    assert quiet.json().keys() == codes[0].json().keys()
    assert (quiet.status_code, quiet.json()["sent_to"]) == (201, codes[0].json()["sent_to"])
    time.sleep(0.2)
    phones.latest(app.phone, 15)


def test_a_new_phone_is_confirmed_waits_and_is_stopped_by_the_old_one_without_the_partner(
    api: Served, phones: Phones
) -> None:
    app = App(api.acme, phones)
    body = {"phone": NEW}
    proofs = {
        "proof": app.code("phone", body),
        "phone_proof": app.code("new_phone", body, NEW),
    }
    asked = app.post("phone", body | proofs)
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    assert NEW not in asked.text
    told = phones.latest(app.phone, 2)
    page = api.http.get(f"/stop/{link_in(told)}")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert api.acme.get(f"{app.path}/changes").json()["data"][0]["state"] == "waiting"
    assert api.http.post(f"/stop/{link_in(told)}").status_code == 200
    assert api.http.post(f"/stop/{link_in(told)}").status_code == 404
    assert api.http.post(f"/stop/{'a' * 24}").status_code == 404
    (change,) = api.acme.get(f"{app.path}/changes").json()["data"]
    assert (change["state"], change["cancelled_by"]) == ("cancelled", "contact")

    passed(api, timedelta(hours=1))
    again = app.post(
        "phone",
        body | {"proof": app.code("phone", body), "phone_proof": app.code("new_phone", body, NEW)},
    ).json()
    stop = {"change": again["id"]}
    cancelled = app.post("changes/cancellation", stop | {"proof": app.code("cancel", stop)})
    assert (cancelled.status_code, cancelled.json()["cancelled_by"]) == (200, "member")
    assert refused(
        app.post("changes/cancellation", stop | {"proof": app.code("cancel", stop)}), "change_not_waiting"
    )


def test_a_member_without_a_phone_gets_the_first_one_by_its_own_code(api: Served, phones: Phones) -> None:
    app = App(api.acme, phones, phone=None)
    assert refused(app.challenge("payee", PAYEE), "no_way_to_prove")
    body = {"phone": NEW}
    asked = app.post("phone", body | {"phone_proof": app.code("new_phone", body, NEW)})
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    passed(api, WAIT)
    assert app.challenge("payee", PAYEE).json()["sent_to"].endswith("99")
    phones.latest(NEW, 2)


def test_linking_takes_both_proofs_and_discloses_nothing_before(api: Served, phones: Phones) -> None:
    acme, bolt, stranger = App(api.acme, phones, 1), App(api.bolt, phones, 1), App(api.acme, phones, 2)
    offers = {}
    for app in (acme, stranger):  # known to another partner, and not
        body = {"offer": True, "proof": app.code("link", {"offer": True})}
        offers[app.member] = app.post("link-offers", body)
        assert offers[app.member].status_code == 201
    shapes = [re.sub("[0-9a-z]", "x", one.json()["code"]) for one in offers.values()]
    assert shapes == ["xxxx-xxxx-xxxx"] * 2
    body = {"code": offers[acme.member].json()["code"]}
    # not without a proof, not by its own, not by one of another code
    assert bolt.post("links", body).status_code == 422
    refused(acme.post("links", body | {"proof": acme.code("link", body)}), "link_refused")
    refused(bolt.post("links", body | {"proof": bolt.code("link", {"code": "x"})}))
    linked = bolt.post("links", body | {"proof": bolt.code("link", body)})
    assert (linked.status_code, linked.json()) == (200, {"linked": True})
    passed(api, timedelta(minutes=11))
    refused(bolt.post("links", body | {"proof": bolt.code("link", body)}), "link_refused")
    assert len(api.rows("SELECT DISTINCT person_id FROM products.person_member")) == 1
    assert len(api.rows("SELECT member_id FROM products.person_member")) == 2
    end = {"leave": True}
    assert bolt.post("links/end", end | {"proof": bolt.code("link", end)}).status_code == 204
    assert len(api.rows("SELECT 1 FROM products.person_member WHERE left_at IS NULL")) == 1


def test_the_whole_account_spans_a_linked_person_for_who_has_the_consent(api: Served, phones: Phones) -> None:
    acme, bolt = App(api.acme, phones, 1), App(api.bolt, phones, 1)
    for app, amount in ((acme, 20_000), (bolt, 30_000)):
        enrolled = app.post("enrolments", {"product": "savings", "choice": {"percent": "5"}})
        assert enrolled.status_code == 201, enrolled.text
        remittance = {
            "remittance_id": f"R-{amount}",
            "member": {"id": app.member},
            "sent": {"amount": 50_000, "currency": "AED"},
            "received": {"amount": 400_000, "currency": "RWF"},
            "collected": {"amount": amount, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": "2026-03-02T09:29:41Z",
        }
        headers = {"Idempotency-Key": f"r-{amount}"}
        posted = app.partner.post("/v1/remittances", remittance, headers=headers)
        assert posted.status_code == 201, posted.text

    def seen(app: App) -> list[tuple[str, int]]:
        answer = app.partner.get(f"{app.path}/whole-account")
        assert answer.status_code == 200, answer.text
        shown = answer.json()["accounts"]
        assert {one["balances"]["member"] for one in shown} == {app.member}
        return sorted((one["partner"], one["balances"]["total"]["amount"]) for one in shown)

    consent = {"text_version": "2026-1", "language": "rw", "purpose": "whole_view"}
    given = acme.post("consents", consent | {"proof": acme.code("consent", consent)})
    assert given.status_code == 201, given.text
    assert seen(acme) == [("acme", 20_000)]  # consent alone links nobody
    code = acme.post("link-offers", {"offer": True, "proof": acme.code("link", {"offer": True})}).json()[
        "code"
    ]
    assert bolt.post("links", {"code": code, "proof": bolt.code("link", {"code": code})}).status_code == 200
    assert seen(acme) == [("acme", 20_000), ("bolt", 30_000)]
    assert seen(bolt) == [("bolt", 30_000)]  # which has no consent
    assert api.bolt.get(f"{acme.path}/whole-account").status_code == 404
    # the export that the member takes with a proof spans both
    member = MemberApp(api, api.acme).member(acme.member)
    exported = member.post(f"{acme.path}/export", {"proof": acme.code("export", {})})
    assert exported.status_code == 200, exported.text
    assert len(exported.json()["registrations"]) == 2


def test_a_members_own_token_proves_for_itself_and_for_nobody_else(api: Served, phones: Phones) -> None:
    mine, other = App(api.acme, phones, 1), App(api.acme, phones, 2)
    mine.partner = MemberApp(api, api.acme).member(mine.member)
    device = {"name": "Tecno Spark", "key": Key().jwk}
    assert mine.post("devices", device | {"proof": mine.code("device", device)}).status_code == 201
    assert mine.post("payees", PAYEE | {"proof": mine.code("payee", PAYEE)}).json()["state"] == "waiting"
    theirs = other.code("payee", PAYEE)
    refused(mine.post("payees", PAYEE | {"proof": theirs}))
    for path in ("challenges", "devices", "payees", "phone", "changes/cancellation", "links", "link-offers"):
        body = {"challenges": {"purpose": "export"}, "payees": PAYEE}.get(path, device | {"proof": theirs})
        answer = mine.partner.post(f"{other.path}/{path}", body)
        assert answer.status_code in (404, 422), (path, answer.text)
    for path in ("devices", "payees", "changes", "notices", "whole-account"):
        assert mine.partner.get(f"{other.path}/{path}").status_code == 404


def test_what_is_not_as_it_should_be_is_422(api: Served, phones: Phones) -> None:
    app = App(api.acme, phones)
    for path, body in (
        ("challenges", {"purpose": "nothing"}),
        ("challenges", {"purpose": "payee", "subject": {}}),
        ("challenges", {"purpose": "payee", "subject": PAYEE | {"destination": {"phone": 5}}}),
        ("challenges", {"purpose": "phone", "subject": {"phone": "0788"}}),
        ("challenges", {"purpose": "new_phone"}),
        ("challenges", {"purpose": "export", "subject": []}),
        ("payees", PAYEE | {"state": "in_effect"}),
        ("payees", PAYEE | {"destination": {}}),
        ("payees", PAYEE | {"beneficiary": "mem_1"}),
        ("payees", PAYEE | {"proof": {"challenge": "chl_1", "code": "123456"}}),
        ("payees", PAYEE | {"proof": {"challenge": f"chl_{'0' * 26}", "code": "1234567"}}),
        ("payees", PAYEE | {"proof": {"challenge": f"chl_{'0' * 26}"}}),
        ("payees", PAYEE | {"proof": {"challenge": f"chl_{'0' * 26}", "code": "123456"}}),
        ("devices", {"name": "x", "key": Key().jwk | {"d": "A" * 43}, "proof": {"challenge": "chl_1"}}),
        ("phone", {"phone": NEW}),
        ("links", {"code": "short"}),
    ):
        answer = app.post(path, body)
        assert answer.status_code == 422, (path, body, answer.text)
    assert phones.messages(app.phone) == []
