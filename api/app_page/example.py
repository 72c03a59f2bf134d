"""Something to see in an empty sandbox: a partner with members of three countries, some with remittances.

What a fund's staff does is done with the services: the partner, its client and key, the sponsors' money. All else is asked for
by the partner, over the API. Repeating it, also after half of it, changes nothing.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.app_page.partner import ApiRefused, Credentials, Partner
from api.auth import client_keys, clients
from api.bootstrap import Services
from ledger import audit
from ledger.audit import Act
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import public_id
from products.programmes import registry
from products.programmes.loader import catalogue
from products.remittances import partners
from products.remittances.partners import Terms
from products.savings.sponsors import fund_sponsor

SLUG: Final = "example-app"
TERMS: Final[dict[str, Terms]] = {"ejoheza": "guaranteed", "ssf-nepal": "guaranteed", "pm-sym": "net"}
"""On net terms money is pending until it is settled: that is worth seeing, too."""
SPONSORED: Final = {("ejoheza", "gov-rw"): 1_000_000, ("pm-sym", "gov-in"): 1_000_000}
REMITTANCES: Final = 12
"""Of the first member: more than a page of the statement holds."""


def prepare(services: Services, path: Path) -> None:
    """Make the partner with its client and key, unless the file has them."""
    if Credentials.load(path) is not None:
        return
    key = ec.generate_private_key(ec.SECP256R1())

    def made(tx: Tx) -> Credentials:
        partner = _partner(tx, services)
        client = clients.create_client(
            tx,
            name=SLUG,
            partner_id=partner.id,
            environment=services.environment,
            at=services.clock.now(),
        )
        added = client_keys.add(tx, client.client_id, _public(key), services.clock.now())
        act = Act("the page /app", "system", "partner.created", public_id("ptn", partner.id), "done")
        audit.record(tx, act, services.clock)
        return Credentials(client.client_id, added.kid, key)

    services.worker.run(made).save(path)


def _public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _partner(tx: Tx, services: Services) -> partners.Partner:
    try:
        return partners.find(tx, SLUG)
    except NotFound:
        made = partners.create_partner(
            tx, slug=SLUG, name="Example app", format_="standard", clock=services.clock
        )
    for programme, terms in TERMS.items():
        try:
            programme_id = registry.find(tx, programme)
        except NotFound:
            programme_id = registry.apply(tx, catalogue()[programme], clock=services.clock).programme_id
        partners.join_programme(
            tx, made, programme_id, terms=terms, collection="as_reported", clock=services.clock
        )
    for (programme, sponsor), amount in SPONSORED.items():
        fund_sponsor(
            tx, services.books, programme=programme, sponsor=sponsor, amount=amount, reference=f"{SLUG}-1"
        )
    return made


def fill(partner: Partner) -> None:
    """Register the members, enrol them and send their remittances, as the partner. Raises `ApiRefused`."""
    uwase = _member(partner, 1, "ejoheza", "savings", "Uwase", "RW", "rw", _fact("income_category", 1))
    for number in range(1, REMITTANCES + 1):
        collected = 1_500 + 250 * (number % 5)
        _remit(partner, f"1-{number}", uwase, ("AE", "AED", 15_000), ("RW", "RWF", collected * 20), collected)
    pay = {"amount": 1_800_000, "currency": "NPR"}
    sita = _member(
        partner, 2, "ssf-nepal", "social-security", "Sita", "NP", "ne", _fact("basic_pay", pay, "document")
    )
    _remit(partner, "2-1", sita, ("JP", "JPY", 60_000), ("NP", "NPR", 5_580_000), 383_940)
    income = {"amount": 1_200_000, "currency": "INR"}
    asha = _member(partner, 3, "pm-sym", "pension", "Asha", "IN", "hi", _fact("monthly_income", income))
    _remit(partner, "3-1", asha, ("KW", "KWD", 40_000), ("IN", "INR", 1_148_000), 15_000)
    _member(partner, 4, "ejoheza", "savings", "Mugisha", "RW", "rw", _fact("income_category", 3))


def _fact(name: str, value: object, evidence: str = "self_declared") -> dict[str, Any]:
    return {"name": name, "value": value, "from": "2026-01-01", "evidence": evidence}


def _member(
    partner: Partner,
    number: int,
    programme: str,
    product: str,
    given_name: str,
    country: str,
    language: str,
    fact: dict[str, Any],
) -> str:
    registration = {
        "programme": programme,
        "partner_reference": f"example-{number}",
        "given_name": given_name,
        "birth_date": "1990-05-01",
        "origin_country": country,
        "residence_country": "AE",
        "facts": [fact],
        "mandate": {"text_version": "2026-1", "language": language},
    }
    try:
        member = str(partner.post("/v1/members", registration)["id"])
    except ApiRefused as refused:
        if "member" not in refused.answer:
            raise
        member = str(refused.answer["member"])
    try:
        partner.post(f"/v1/members/{member}/enrolments", {"product": product})
    except ApiRefused as refused:
        if refused.status != 409:
            raise
    return member


def _remit(
    partner: Partner,
    name: str,
    member: str,
    sent: tuple[str, str, int],
    received: tuple[str, str, int],
    collected: int,
) -> None:
    origin, sent_currency, sent_amount = sent
    destination, currency, amount = received
    known = partner.get("/v1/remittances", remittance_id=f"EXAMPLE-{name}")["data"]
    if known:
        return
    partner.post(
        "/v1/remittances",
        {
            "remittance_id": f"EXAMPLE-{name}",
            "member": {"id": member},
            "sent": {"amount": sent_amount, "currency": sent_currency},
            "received": {"amount": amount, "currency": currency},
            "collected": {"amount": collected, "currency": currency},
            "origin_country": origin,
            "destination_country": destination,
            "completed_at": (datetime.now(UTC) - timedelta(seconds=1)).isoformat(),
        },
        key=f"{SLUG}-{name}",
    )
