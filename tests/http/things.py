"""One thing of every kind, what nothing is called, and a good body for every route: what attacks are made of."""

from typing import Any, Final

from sqlalchemy import text

from integrations.rails import sandbox
from ledger.audit import Act, record
from ledger.ids import new_id, parse_public_id, public_id
from tests import planted
from tests.http.cast import Cast
from tests.http.hooked import Signer, completed
from tests.http.served import Served, a_person
from tests.http.test_proofs import PAYEE, App, Phones
from tests.integration.members.proving import Key

DAY: Final = "2026-03-02"
MONEY: Final = {"amount": 1_000, "currency": "RWF"}
MAPPING: Final = {
    "remittance_id": {"column": "Reference"},
    "amount": {"column": "Amount"},
    "currency": {"constant": "RWF"},
    "at": {"column": "Paid"},
}
BANK_ACCOUNT: Final = {
    "slug": "kigali-savers",
    "name": "Savers",
    "fund": "ejoheza/savers",
    "currency": "RWF",
    "identification": "RW38 0001",
    "statements_since": DAY,
}
STATEMENT: Final = (
    ":20:S1\r\n:25:RW380001\r\n:28C:1/1\r\n:60F:C260301RWF0,\r\n:61:2603020302C500,NTRFNONREF//B1\r\n"
    f":86:{planted.GIVEN_NAME}\r\n:62F:C260302RWF500,\r\n-\r\n"
)
LAYOUT: Final = {"columns": [{"header": "Amount", "field": "amount"}]}


PREFIXES: Final = {
    "member": "mem",
    "transaction": "txn",
    "subject": "rmt",
    "document": "doc",
    "verification_id": "ver",
    "dependant": "dep",
    "enrolment": "enr",
    "device": "dev",
    "payee": "pye",
    "remittance": "rmt",
    "delivery": "dlv",
    "account": "acc",
    "approval": "apr",
    "session": "ses",
    "operator": "opr",
    "entry": "aud",
    "challenge": "chl",
    "change": "chg",
    "beneficiary": "ben",
    "quote": "quo",
    "file": "stf",
    "payout": "pay",
    "settlement": "stl",
    "pack": "cpk",
    "remittal": "rtl",
    "endpoint": "whe",
    "event": "evt",
    "break_id": "brk",
    "resolution_id": "brs",
    "bank_statement": "bst",
    "counterparty": "bcp",
    "opening": "opn",
    "receipt": "rcp",
    "pairing": "par",
}
NAMED: Final = frozenset({"programme", "partner", "rail", "agency", "bank_account"})
"""What has a name that people chose."""
OF_A_MONTH: Final = {"month": "2026-02", "figure": "a_figure", "item": "statements"}
"""What a programme's month, and what is in it, is called in every programme."""


def absent(part: str) -> str:
    """What nothing of this kind is called."""
    if part in OF_A_MONTH:
        return OF_A_MONTH[part]
    if part == "number":
        return "1000"
    return "nobodys" if part in NAMED else public_id(PREFIXES[part], new_id())


def absent_all() -> dict[str, str]:
    """A name that nothing has, for whatever a path names."""
    return {part: absent(part) for part in (*PREFIXES, *NAMED, *OF_A_MONTH, "number")}


def bodies(ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """A good body for every route below an id, naming these things."""
    proof = {"challenge": ids["challenge"], "code": "123456"}
    remark = {"remark": "seen"}
    return {
        "change_member": {"given_name": planted.GIVEN_NAME},
        "record_fact": {"name": "income_category", "value": 2, "from": "2026-02-01"},
        "give_mandate": {"text_version": "2026-1", "language": "rw"},
        "change_mandate": {"state": "paused"},
        "record_document": {"type": "passport", "country": "RW", "number": planted.DOCUMENT},
        "verify_member": {"level": "document", "document": ids["document"]},
        "add_dependant": {"relation": "child", "given_name": planted.GIVEN_NAME},
        "set_beneficiaries": {"beneficiaries": [], "proof": proof},
        "export_whole_member": {"proof": proof},
        "erase_member": {"proof": proof},
        "enrol_member": {"product": "savings"},
        "start_challenge": {"purpose": "consent", "subject": {}},
        "cancel_change": {"change": ids["change"], "proof": proof},
        "register_device": {"name": "A phone", "key": Key().jwk, "proof": proof},
        "change_phone": {"phone": planted.phone(77), "phone_proof": proof, "proof": proof},
        "propose_payee": PAYEE | {"beneficiary": ids["beneficiary"]},
        "offer_link": {"offer": True, "proof": proof},
        "link_member": {"code": "7kq2-m4xp-9dzr", "proof": proof},
        "unlink_member": {"leave": True, "proof": proof},
        "reverse_remittance": {"reversed_at": "2026-03-02T09:25:00Z", "reason": "an attack"},
        "request_roles": remark | {"roles": [{"role": "auditor"}]},
        "request_recovery": remark,
        "request_activation": remark,
        "disable_operator": remark,
        "draw_link": {},
        "approve_request": remark,
        "refuse_request": remark,
        "withdraw_request": remark,
        "put_settlement_mapping": {"mapping": MAPPING},
        "explain_settlement_difference": remark,
        "explain_checklist_item": remark,
        "request_close": {},
        "request_month_reopening": {"reason": "an attack"},
        "approve_payout": {
            "payee": ids["payee"],
            "amount": MONEY,
            "fee": MONEY | {"amount": 0},
            "proof": proof,
        },
        "cancel_payout": {},
        "request_payout_release": remark,
        "request_opening_commit": remark,
        "request_opening_take_back": remark,
        "request_payout_resolution": {"finding": "failed", "evidence": "a letter"},
        "pause_rail": {},
        "resume_rail": {},
        "bring_payment_answer": {},
        "request_settlement_return": {"reason": "an attack"},
        "change_webhook_endpoint": {"description": "another's"},
        "rotate_webhook_endpoint_secret": {},
        "disable_webhook_endpoint": {},
        "enable_webhook_endpoint": {},
        "replay_event": {},
        "replay_events": {"since": "2026-03-01T00:00:00Z"},
        "certify_claim_pack": {"sha256": "0" * 64, "reference": "MIN/1", "certified_on": DAY},
        "withdraw_claim_pack": {},
        "set_up_agency": {"columns": LAYOUT},
        "send_remittal": {"reference": "PAY-1", "on": DAY},
        "confirm_remittal": {"on": DAY},
        "withdraw_remittal": {},
        "answer_remittal": {"lines": [{"line": 1, "outcome": "accepted"}]},
        "bring_remittal_answer": {},
        "change_bank_account": {"name": "an attack"},
        "identify_receipt": {"partner": "acme"},
        "undo_pairing": remark,
        "withdraw_bank_statement": remark,
        "learn_break_counterparty": {"partner": "acme"},
        "assign_break": {"owner": "mallory"},
        "preview_break_resolution": {"method": "write_off"},
        "confirm_break_resolution": remark | {"digest": "0" * 64},
        "undo_break_resolution": remark,
        "put_break_limit": {"currency": "RWF", "second_person_above": 1},
        "request_verification": {},
        "finalise_opening_load": {},
        "add_bank_counterparty": {"identification": "AE070331", "party": "acme"},
    }


def bodies_without_id(member: str) -> dict[str, dict[str, Any]]:
    """A good body for every route that takes JSON and has no id in its path."""
    account = absent("account")
    remark = {"remark": "seen"}
    code = {"totp": "123456"}
    secret = {"token": f"mzn_link_{'a' * 43}"}
    way = {"member": {"id": member}, "origin_country": "AE", "destination_country": "RW"}
    return {
        "register_member": a_person(90),
        "create_quote": way | {"sent": MONEY, "received": MONEY},
        "send_remittance": way
        | {
            "sent": MONEY,
            "received": MONEY,
            "remittance_id": "X",
            "completed_at": "2026-03-02T09:20:00Z",
        },
        "request_transaction": {
            "postings": [{"debit": account, "credit": account, "amount": MONEY}],
            "reason": "an attack",
        },
        "request_write_off": {"member_debt": {"account": account, "amount": 1}, "reason": "an attack"},
        "request_reopening": {"fund": "ejoheza/savers", "through": "2026-01-31", "reason": "an attack"},
        "request_programme_version": {"source": "programme: x"},
        "request_operator": {
            "email": "mallory@example.org",
            "name": "Mallory",
            "log_in": "password",
            "roles": [{"role": "administrator"}],
            "remark": "an attack",
        },
        "log_in": {"email": "mallory@example.org", "password": "x" * 16} | code,
        "confirm_session": code,
        "change_password": {"new_password": "y" * 20, "password": "x" * 16} | code,
        "begin_totp": {"password": "x" * 16} | code,
        "complete_totp": code,
        "begin_set_up": secret,
        "complete_set_up": secret | code,
        "complete_openid_log_in": {"ticket": "a" * 43} | code,
        "request_payout": {"member": member, "payee": absent("payee"), "amount": MONEY, "product": "savings"},
        "record_settlement": {"partner": "acme", "amount": MONEY, "through": DAY, "reference": "TT-1"},
        "make_claim_pack": {"programme": "ejoheza", "sponsor": "gov-rw", "through": DAY},
        "make_remittal": {"programme": "ejoheza", "agency": "rssb", "through": DAY},
        "create_webhook_endpoint": {"url": "https://hooks.acme.example/mizan"},
        "add_bank_account": BANK_ACCOUNT,
        "pair_by_hand": remark
        | {"lines": [public_id("bsl", new_id())], "items": [public_id("itm", new_id())]},
        "book_conversion": remark
        | {"from_line": public_id("bsl", new_id()), "to_line": public_id("bsl", new_id())},
        "run_reconciliation": {},
    }


def everything_of(cast: Cast, phones: Phones) -> dict[str, str]:
    """One thing of every kind that is acme's member's."""
    api = cast.api
    app = App(api.acme, phones, 50)

    def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = app.post(path, body)
        assert answer.status_code == 201, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    document = made("documents", {"type": "passport", "country": "RW", "number": planted.DOCUMENT})["id"]
    device = {"name": "A phone", "key": Key().jwk}
    device = made("devices", device | {"proof": app.code("device", device)})
    family = {
        "beneficiaries": [
            {"relation": "spouse", "given_name": planted.GIVEN_NAME, "share_basis_points": 10_000}
        ]
    }
    named = api.acme.call("PUT", f"{app.path}/beneficiaries", family | {"proof": app.code("consent", family)})
    enrolment = made("enrolments", {"product": "savings"})["id"]
    way = {"member": {"id": app.member}, "origin_country": "AE", "destination_country": "RW"}
    money = {
        "sent": {"amount": 80_000, "currency": "AED"},
        "received": {"amount": 300_000, "currency": "RWF"},
    }
    quote = api.acme.post("/v1/quotes", way | money, headers={"Idempotency-Key": "q"}).json()["id"]
    remittance = api.acme.post(
        "/v1/remittances",
        way
        | money
        | {
            "remittance_id": "ACME-50",
            "collected": {"amount": 15_000, "currency": "RWF"},
            "completed_at": "2026-03-02T09:20:00Z",
        },
        headers={"Idempotency-Key": "r"},
    ).json()
    signer = Signer(api.acme.partner or new_id(), "acme", api.webhook_secret, api.clock, api.http)
    (account,) = next(
        iter(api.rows("SELECT savings_account FROM products.enrolment ORDER BY enrolled_at DESC, id DESC"))
    )
    made_of = {
        "member": app.member,
        "document": document,
        "verification_id": made("verifications", {"level": "document", "document": document})["id"],
        "dependant": made("dependants", {"relation": "child", "given_name": planted.GIVEN_NAME})["id"],
        "beneficiary": named.json()["data"][0]["id"],
        "enrolment": enrolment,
        "device": device["id"],
        "change": device["change"],
        "payee": made("payees", PAYEE)["id"],
        "challenge": app.challenge("consent", {}).json()["id"],
        "quote": quote,
        "remittance": remittance["id"],
        "transaction": remittance["transaction"],
        "subject": remittance["id"],
        "account": public_id("acc", account),
        "delivery": signer.send(completed()).json()["id"],
    }
    return made_of | money_out(cast, made_of)


def money_out(cast: Cast, of: dict[str, str]) -> dict[str, str]:
    """What is paid out, settled and told: for the member and the remittance of `of`, and what the fund's managers have."""
    api, manager = cast.api, cast.everyone["manager"]
    with api.services.worker.begin() as tx:
        sandbox.ensure_rails(tx, api.clock)
    endpoint = api.acme.post("/v1/webhook-endpoints", {"url": "https://hooks.acme.example/mizan"})
    owed = {"amount": 15_000, "currency": "RWF"}
    settled = cast.send(
        manager,
        "POST",
        "/v1/settlements",
        json={
            "partner": "acme",
            "amount": owed,
            "through": DAY,
            "remittances": [of["remittance"]],
            "reference": "TT-0",
        },
    )
    assert settled.status_code == 201, settled.text
    mapped = cast.send(manager, "PUT", "/v1/settlement-mappings/acme", json={"mapping": MAPPING})
    assert mapped.status_code == 200, mapped.text
    file = api.http.post(
        "/v1/settlement-files?partner=acme",
        content="Reference,Amount,Paid\nX-1,15000,2026-03-02T08:00:00Z\n",
        headers={"Content-Type": "text/csv", "Authorization": f"Bearer {manager.token}"},
    )
    assert file.status_code == 201, file.text
    return (
        from_banks(cast)
        | {
            "programme": "ejoheza",
            "partner": "acme",
            "rail": "simulated-ejoheza",
            "agency": "rssb",
            "endpoint": endpoint.json()["id"],
            "settlement": settled.json()["id"],
            "file": file.json()["id"],
            "number": "1",
        }
        | recorded(api, of)
        | closed_month(api)
    )


def from_banks(cast: Cast) -> dict[str, str]:
    """What the fund's managers have from banks."""
    manager = cast.everyone["manager"]
    added = cast.send(manager, "POST", "/v1/bank-accounts", json=BANK_ACCOUNT)
    assert added.status_code == 201, added.text
    known = cast.send(
        manager,
        "POST",
        "/v1/bank-accounts/kigali-savers/counterparties",
        json={"identification": "AE070331", "party": "acme"},
    )
    statement = cast.api.http.post(
        "/v1/bank-statements",
        content=STATEMENT,
        headers={"Content-Type": "application/octet-stream", "Authorization": f"Bearer {manager.token}"},
    )
    assert statement.status_code == 201, statement.text
    opening = cast.api.http.post(
        "/v1/opening-loads?programme=ejoheza&effective_on=2026-02-28",
        content="account,amount\nbank_charges,1\n",
        headers={"Content-Type": "text/csv", "Authorization": f"Bearer {manager.token}"},
    )
    assert opening.status_code == 201, opening.text
    return {
        "opening": opening.json()["id"],
        "bank_account": "kigali-savers",
        "bank_statement": statement.json()["statements"][0]["id"],
        "counterparty": known.json()["id"],
    }


def recorded(api: Served, of: dict[str, str]) -> dict[str, str]:
    """What workers or sponsors would have to act for, as rows."""
    ids = {name: new_id() for name in ("payout", "pack", "remittal", "event")}
    values: dict[str, object] = {name: str(made) for name, made in ids.items()} | {
        "link": str(parse_public_id("mem", of["member"])),
        "payee": str(parse_public_id("pye", of["payee"])),
        "now": api.clock.now(),
        "day": DAY,
    }
    with api.services.worker.begin() as tx:
        for statement in ROWS:
            assert tx.execute(text(statement), values).rowcount == 1, statement
    return {name: public_id(PREFIXES[name], made) for name, made in ids.items()}


def closed_month(api: Served) -> dict[str, str]:
    """February, closed with a pack of one figure."""
    with api.services.worker.begin() as tx:
        noted = record(tx, Act("opr_x", "operator", "period.closed", "ejoheza/2026-02", "done"), api.clock)
        values = {"id": new_id(), "noted": noted, "now": api.clock.now()}
        for statement in A_CLOSE:
            assert tx.execute(text(statement), values).rowcount, statement
    return OF_A_MONTH


A_CLOSE: Final = (
    """
    INSERT INTO products.close (id, programme_id, month, revision, through, funds, digest, audit_entry, era, snapshot, remark,
        closed_by, closed_at)
    SELECT :id, p.id, '2026-02-01', 1, '2026-02-28', ARRAY[f.id], sha256('pack'), :noted, 1, pg_current_snapshot(), '', 'opr_x',
        :now
    FROM products.programme p JOIN ledger.fund f ON f.code = p.slug || '/savers' WHERE p.slug = 'ejoheza'
    """,
    """
    INSERT INTO products.close_file (close_id, format, content, digest)
    SELECT :id, made.format, made.content, sha256(made.content)
    FROM ledger.fund f CROSS JOIN LATERAL (
        SELECT format, convert_to(CAST(jsonb_build_object('figures', jsonb_build_object('a_figure', jsonb_build_object(
            'fund', f.id, 'currency', 'RWF', 'measure', 'debit', 'through', '2026-02-28'))) AS text), 'UTF8') AS content
        FROM unnest(ARRAY['json', 'html']) AS format) AS made
    WHERE f.code = 'ejoheza/savers'
    """,
)
A_PAYOUT: Final = """
    INSERT INTO products.payout (id, partner_id, programme_id, link_id, member_id, rail_id, payee_id, amount, fee,
        rail_fee, currency, arrival_earliest, arrival_latest, state, changes, requested_by, requested_at, requested_on,
        expires_at)
    SELECT :payout, l.partner_id, r.programme_id, l.id, l.member_id, r.id, :payee, 1000, 0, 0, 'RWF', :now, :now,
        'awaiting_member', 1, 'acme', :now, :day, :now
    FROM products.member_link l, products.rail r WHERE l.id = :link AND r.slug = 'simulated-ejoheza'
    """
ROWS: Final = (
    A_PAYOUT,
    """
    INSERT INTO products.claim_pack (id, programme_id, sponsor_id, number, currency, through, lines, adjustments,
        claimed, adjusted, digest, key_id, public_key, signature, made_at)
    SELECT :pack, p.id, s.id, 1, 'RWF', :day, 1, 0, 1000, 0, sha256('pack'), 'k', sha256('key'),
        sha256('a') || sha256('b'), :now
    FROM products.sponsor s JOIN products.programme p ON p.id = s.programme_id WHERE p.slug = 'ejoheza' LIMIT 1
    """,
    """
    INSERT INTO products.remittal (id, programme_id, agency, number, fund_id, currency, through, lines, amount, columns,
        answer, second_person_above, digest, made_at)
    SELECT :remittal, p.id, 'rssb', 1, f.id, 'RWF', :day, 1, 1000, '{}', '{}', 0, sha256('remittal'), :now
    FROM products.programme p JOIN ledger.fund f ON f.code = p.slug || '/savers' WHERE p.slug = 'ejoheza'
    """,
    """
    INSERT INTO integrations.event (id, seq, partner_id, stream, link_id, type, subject, digest, data, occurred_at)
    SELECT :event, 1, l.partner_id, l.id, l.id, 'cover.changed', 'x', sha256('event'), '{}', :now
    FROM products.member_link l WHERE l.id = :link
    """,
)
