"""The whole API over real sockets, with a partner and an auditor who hold tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.auth.clients import NewClient, create_client
from api.bootstrap import Services
from api.settings import Environment, Settings
from integrations.partners.secrets import create_secret
from ledger.clock import FixedClock
from ledger.database import Database
from products.programmes.registry import apply
from products.remittances.partners import create_partner, join_programme
from tests import planted
from tests.http.hooked import serving
from tests.integration.members.builders import CATALOGUE

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@dataclass
class Caller:
    """A client with a token, calling the API."""

    http: httpx.Client
    client: NewClient
    partner: UUID | None
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def authenticate(self, scope: str | None = None) -> httpx.Response:
        """Get a token by HTTP Basic and use it from now on."""
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        answer = self.http.post(
            "/oauth/token", data=form, auth=(self.client.client_id, self.client.client_secret)
        )
        if answer.status_code == 200:
            self.token = answer.json()["access_token"]
        return answer

    def call(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """One call with the token."""
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        return self.http.request(method, path, json=json, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET with the token."""
        return self.call("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """POST with the token."""
        return self.call("POST", path, json, **more)


@dataclass
class Served:
    """A running API over one database: two partners in a programme, and an auditor."""

    app: FastAPI
    url: str
    http: httpx.Client
    clock: FixedClock
    services: Services
    acme: Caller
    bolt: Caller
    auditor: Caller
    webhook_secret: str

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of the worker finds."""
        with self.services.worker.begin() as tx:
            return [tuple(row) for row in tx.exec_driver_sql(query)]


@contextmanager
def served(settings: Settings, worker: Database, clock: FixedClock, **changes: Any) -> Iterator[Served]:
    """Serve the API on a test's database, with callers that hold tokens."""
    app = create_app(settings.model_copy(update=changes), clock=clock, publish=lambda: None)
    services: Services = app.state.services
    made: dict[str, NewClient] = {}
    ids: dict[str, UUID] = {}
    with worker.begin() as tx:
        tx.exec_driver_sql("SELECT 1")
        programme = apply(tx, CATALOGUE.joinpath("ejoheza.yaml").read_text(), clock=clock).programme_id
        for slug in ("acme", "bolt"):
            partner = create_partner(tx, slug=slug, name=slug, format_="standard", clock=clock)
            join_programme(tx, partner, programme, terms="guaranteed", collection="as_reported", clock=clock)
            ids[slug] = partner.id
            made[slug] = create_client(
                tx, name=slug, partner_id=partner.id, environment=Environment.SANDBOX, at=clock.now()
            )
        made["auditor"] = create_client(
            tx, name="auditor", roles=["auditor"], environment=Environment.SANDBOX, at=clock.now()
        )
        secret = create_secret(tx, services.keyring, clock, ids["acme"])
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as http:
        callers = {name: Caller(http, client, ids.get(name)) for name, client in made.items()}
        for caller in callers.values():
            caller.authenticate()
        yield Served(
            app,
            url,
            http,
            clock,
            services,
            callers["acme"],
            callers["bolt"],
            callers["auditor"],
            secret,
        )


def a_person(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A registration as the contract shows it."""
    return {
        "programme": "ejoheza",
        "phone": planted.phone(number),
        "partner_reference": f"A-{number}",
        "birth_date": planted.BIRTH_DATE,
        "sex": "female",
        "origin_country": "RW",
        "residence_country": "AE",
        "facts": [{"name": "income_category", "value": 1, "from": "2026-01-01"}],
        "mandate": {"text_version": "2026-1", "language": "rw"},
    } | changes
