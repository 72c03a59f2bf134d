"""Operators at work: persons with a password, an authenticator and a session, for tests over HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pyotp

from api.auth import links, operators
from api.auth.operators import Grant, LogIn
from api.auth.scopes import Role
from tests.http.served import Served

PASSWORD = "Kigali-harbour-7-lanterns"


@dataclass
class Person:
    """An operator with what they know and have."""

    api: Served
    id: str
    key: UUID
    email: str
    password: str = PASSWORD
    secret: str = ""
    recovery_codes: list[str] = field(default_factory=list)
    token: str = ""

    def code(self) -> str:
        """The authenticator's code for the next step: each counts once, so the clock moves on."""
        self.api.clock.advance(timedelta(seconds=30))
        return pyotp.TOTP(self.secret).at(int(self.api.clock.now().timestamp()))

    def log_in(self, **changes: Any) -> httpx.Response:
        """Log in and use the session from now on."""
        given = {"email": self.email, "password": self.password, "totp": None} | changes
        if given["totp"] is None and "recovery_code" not in given:
            given["totp"] = self.code()
        answer = self.api.http.post(
            "/v1/session", json={name: value for name, value in given.items() if value is not None}
        )
        if answer.status_code == 201 and answer.json()["token"]:
            self.token = answer.json()["token"]
        return answer

    def confirm(self) -> httpx.Response:
        """Give a fresh code in this session."""
        return self.post("/v1/session/confirmation", {"totp": self.code()})

    def call(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """One call with the session."""
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        return self.api.http.request(method, path, json=json, headers=headers, **more)

    def get(self, path: str) -> httpx.Response:
        """GET with the session."""
        return self.call("GET", path)

    def post(self, path: str, json: Any = None) -> httpx.Response:
        """POST with the session."""
        return self.call("POST", path, json)

    def delete(self, path: str) -> httpx.Response:
        """DELETE with the session."""
        return self.call("DELETE", path)

    def set_up(self, token: str, code: str | None = None) -> httpx.Response:
        """Open a one-time link and complete it."""
        begun = self.api.http.post("/v1/set-up", json={"token": token})
        assert begun.status_code == 200, begun.text
        self.secret = begun.json()["secret"]
        given = {"token": token, "totp": self.code(), "code": code}
        if begun.json()["log_in"] == "password":
            given["password"] = self.password
        answer = self.api.http.post(
            "/v1/set-up/completion", json={name: value for name, value in given.items() if value is not None}
        )
        if answer.status_code == 200:
            self.recovery_codes = answer.json()["recovery_codes"]
        return answer


def founder(api: Served, email: str) -> Person:
    """One of the two first administrators, set up and logged in."""
    with api.services.worker.begin() as tx:
        link = links.found(
            tx, email=email, name="A founder", log_in="password", by="test", at=api.clock.now()
        )
        person = Person(api, operators.find(tx, link.operator_id).public_id, link.operator_id, email)
    assert person.set_up(link.token).status_code == 200
    assert person.log_in().status_code == 201
    return person


def person(
    api: Served,
    *roles: Role,
    programme: UUID | None = None,
    organisation: UUID | None = None,
    log_in: LogIn = "password",
    email: str | None = None,
) -> Person:
    """An operator of these roles, as if approved, set up and (unless through a provider) logged in."""
    return _admitted(
        api,
        [Grant(role, programme) for role in roles],
        organisation,
        log_in,
        email or f"{'-'.join(roles)}@fund.example",
    )


def _admitted(
    api: Served, grants: Sequence[Grant], organisation: UUID | None, log_in: LogIn, email: str
) -> Person:
    now = api.clock.now()
    code, digest = links.new_code()
    with api.services.worker.begin() as tx:
        made = operators.create(
            tx,
            email=email,
            name="Keza Mutoni",
            grants=grants,
            organisation_id=organisation,
            log_in=log_in,
            at=now,
        )
        links.prepare(tx, made, digest, "test", now)
        link = links.draw(tx, made, "another", now)
        one = Person(api, operators.find(tx, made).public_id, made, email)
    assert one.set_up(link.token, code).status_code == 200
    if log_in == "password":
        assert one.log_in().status_code == 201
    return one


def audit(api: Served, action: str) -> list[tuple[Any, ...]]:
    """What the audit log says of an action, in order: actor, outcome, detail."""
    return api.rows(
        f"SELECT actor, outcome, detail FROM ledger.audit_entry WHERE action = '{action}' ORDER BY recorded_at, id"
    )


def founded(api: Served, email: str, name: str = "Someone") -> links.Link:
    """The link of one of the two first administrators."""
    now = api.clock.now()
    return api.services.worker.run(
        lambda tx: links.found(tx, email=email, name=name, log_in="password", by="test", at=now)
    )
