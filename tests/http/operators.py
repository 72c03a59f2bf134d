"""Operators with open sessions, calling the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import httpx

from api.auth import operators, sessions
from api.auth.operators import Grant
from api.auth.scopes import Role
from api.auth.sessions import Lifetimes
from ledger.ids import public_id
from tests.http.served import Served

_numbers = count(1)


@dataclass
class Person:
    """An operator with an open session."""

    api: Served
    key: UUID
    token: str

    @property
    def id(self) -> str:
        """``opr_…``."""
        return public_id("opr", self.key)

    def call(
        self, method: str, path: str, json: Any = None, *, key: str | None = None, **more: Any
    ) -> httpx.Response:
        """One call in the session."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Idempotency-Key": key} if key else {})
        return self.api.http.request(method, path, json=json, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET in the session."""
        return self.call("GET", path, **more)

    def post(self, path: str, json: Any = None, *, key: str | None = None) -> httpx.Response:
        """POST in the session."""
        return self.call("POST", path, json, key=key)

    def approve(self, approval: str, key: str | None = None) -> httpx.Response:
        """Approve a request, under a key of its own."""
        return self.post(
            f"/v1/approvals/{approval}/approval", {"remark": "seen"}, key=key or f"approve-{next(_numbers)}"
        )


def person(
    api: Served, *roles: Role, programmes: Sequence[UUID | None] = (None,), confirmed: bool = True
) -> Person:
    """An operator of these roles, for these programmes (None: for all), who has just logged in."""
    number = next(_numbers)
    with api.services.worker.begin() as tx:
        made = operators.create(
            tx,
            email=f"person-{number}@example.org",
            name=f"Person {number}",
            grants=[Grant(role, programme) for role in roles for programme in programmes],
            organisation_id=None,
            log_in="openid",
            at=api.clock.now(),
        )
        opened = sessions.open_session(
            tx,
            operators.find(tx, made),
            address="192.0.2.1",
            now=api.clock.now(),
            lifetimes=Lifetimes(timedelta(days=30), timedelta(days=30)),
            confirmed=confirmed,
        )
    return Person(api, made, opened.token)
