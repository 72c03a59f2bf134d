"""Everybody who may call the API, and what there is for them to see: one partner's member with money, and others."""

from dataclasses import dataclass, field
from datetime import timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

import httpx

from api.access import Caller, Entry
from api.auth import operators, sessions
from api.auth.clients import create_client
from api.auth.operators import Grant
from api.auth.scopes import Role, for_members
from api.auth.sessions import Lifetimes
from api.bootstrap import Services
from api.settings import Environment
from ledger.ids import new_id, public_id
from products.programmes.registry import apply
from products.remittances.partners import create_organisation
from tests.http.served import Served, a_person

CATALOGUE = files("products.programmes.catalogue")
ELSEWHERE = "three-for-one"
LIVES = Lifetimes(idle=timedelta(hours=1), absolute=timedelta(hours=8))


@dataclass(frozen=True, slots=True)
class Someone:
    """A caller: what it is, with which token, and which member it names as its own."""

    name: str
    kinds: tuple[Caller, ...]
    person: bool
    token: str | None
    sees_member: bool
    """Whether acme's member is within its sight, if it may look at all."""
    elsewhere: bool = False
    """Whether its roles are for another programme alone."""

    def allowed(self, entry: Entry) -> bool:
        return any(entry.lets_in(kind, person=self.person) for kind in self.kinds)


@dataclass(frozen=True, slots=True)
class Cast:
    """Everyone who calls, and what there is to see."""

    api: Served
    everyone: dict[str, Someone]
    member: str
    other: str
    """Another member of acme: `another member`'s own."""
    ids: dict[str, str] = field(default_factory=dict)

    def send(self, who: Someone, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Idempotency-Key": public_id("try", new_id())}
        if who.token is not None:
            headers["Authorization"] = f"Bearer {who.token}"
        return self.api.http.request(method, path, headers=headers, **more)


def session_of(
    services: Services, name: str, grants: list[tuple[Role, UUID | None]], organisation: UUID | None = None
) -> str:
    """The token of an operator's open session."""
    now = services.clock.now()
    with services.worker.begin() as tx:
        made = operators.create(
            tx,
            email=f"{name}@fund.example",
            name=name,
            grants=[Grant(role, programme) for role, programme in grants],
            organisation_id=organisation,
            log_in="password",
            at=now,
        )
        operator = operators.find(tx, made)
        opened = sessions.open_session(
            tx, operator, address="192.0.2.1", now=now, lifetimes=LIVES, confirmed=True
        )
    return opened.token


def staff_token(api: Served, role: str) -> str:
    with api.services.worker.begin() as tx:
        client = create_client(
            tx, name=role, roles=[role], environment=Environment.SANDBOX, at=api.clock.now()
        )
    answer = api.http.post(
        "/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(client.client_id, client.client_secret),
    )
    token: str = answer.json()["access_token"]
    return token


def assemble(api: Served) -> Cast:
    """Admit everybody to an API that nobody has used yet."""
    services = api.services
    mine = api.acme.post("/v1/members", a_person()).json()["id"]
    another = api.acme.post("/v1/members", a_person(2)).json()["id"]
    api.acme.post(f"/v1/members/{mine}/enrolments", {"product": "savings"})
    remittance = api.acme.post(
        "/v1/remittances",
        {
            "remittance_id": "ACME-1",
            "member": {"id": mine},
            "sent": {"amount": 80000, "currency": "AED"},
            "received": {"amount": 300000, "currency": "RWF"},
            "collected": {"amount": 15000, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": "2026-03-02T09:20:00Z",
        },
        headers={"Idempotency-Key": "ACME-1"},
    ).json()
    with services.worker.begin() as tx:
        here = tx.exec_driver_sql("SELECT id FROM products.programme").scalar_one()
        elsewhere = apply(
            tx, CATALOGUE.joinpath(f"{ELSEWHERE}.yaml").read_text(), clock=api.clock
        ).programme_id
        ngo = create_organisation(tx, slug="ngo", name="NGO", programmes=[here], clock=api.clock)
        account = tx.exec_driver_sql(
            "SELECT savings_account FROM products.enrolment WHERE savings_account IS NOT NULL"
        ).scalar_one()

    def member_token(member: str) -> str:
        return services.tokens.issue(
            subject=member,
            client_id=api.acme.client.client_id,
            actor=api.acme.client.client_id,
            scopes=frozenset(for_members()),
        )

    def operator(name: str, *grants: tuple[Role, UUID | None], organisation: UUID | None = None) -> Someone:
        token = session_of(services, name, list(grants), organisation)
        sees = any(role != "caseworker" and where in (None, here) for role, where in grants)
        return Someone(
            name,
            tuple(role for role, _ in grants),
            True,
            token,
            sees,
            {where for _, where in grants} == {elsewhere},
        )

    people = [
        Someone("acme", ("partner",), False, api.acme.token, True),
        Someone("bolt", ("partner",), False, api.bolt.token, False),
        Someone("the member", ("member",), False, member_token(mine), True),
        Someone("another member", ("member",), False, member_token(another), False),
        *(
            Someone(f"{role} client", (role,), False, staff_token(api, role), True)
            for role in ("manager", "administrator", "auditor")
        ),
        operator("manager", ("manager", None)),
        operator("administrator", ("administrator", None)),
        operator("auditor", ("auditor", None)),
        operator("caseworker", ("caseworker", None), organisation=ngo.id),
        operator("manager-here", ("manager", here)),
        operator("manager-elsewhere", ("manager", elsewhere)),
        operator("auditor-elsewhere", ("auditor", elsewhere)),
        operator("administrator-here-auditor-anywhere", ("administrator", here), ("auditor", None)),
        Someone("nobody", (), False, None, False),
        Someone("a made-up session", (), False, f"{operators.TOKEN_PREFIX}{'x' * 43}", False),
        Someone("a made-up token", (), False, "eyJhbGciOiJub25lIn0.e30.", False),
    ]
    return Cast(
        api,
        {one.name: one for one in people},
        mine,
        another,
        {
            "member": mine,
            "remittance": remittance["id"],
            "transaction": remittance["transaction"],
            "account": public_id("acc", account),
            "subject": "match:savings",
            "programme": "ejoheza",
            "month": "2026-02",
        },
    )
