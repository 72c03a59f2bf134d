"""A deployment as a partner meets it: the processes of `mizan serve`, the command line, tokens and signed webhooks."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from standardwebhooks import Webhook

from api import serving
from api.serving import Serving
from api.settings import Settings
from tests.http.served import a_person

T = TypeVar("T")

COMES_ABOUT_SECONDS_MAX = 100.0
MIZAN = Path(sys.executable).with_name("mizan")


def until(ask: Callable[[], T | None], what: str) -> T:
    """The first answer that is not None."""
    deadline = time.monotonic() + COMES_ABOUT_SECONDS_MAX
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, f"it never came about: {what}"
        time.sleep(0.05)
    return answer


def now() -> str:
    """This second, as RFC 3339 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Client:
    """A client of the API with a token by client credentials."""

    http: httpx.Client
    client_id: str
    client_secret: str
    token: str = ""

    def __post_init__(self) -> None:
        answer = self.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(self.client_id, self.client_secret),
        )
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["access_token"]

    def get(self, path: str, status: int = 200, **params: str) -> Any:
        """What a GET answers."""
        answer = self.http.get(path, params=params, headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, body: object, status: int = 201, key: str | None = None) -> Any:
        """What a POST answers, under an Idempotency-Key where there is one."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Idempotency-Key": key} if key else {})
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()


@dataclass(slots=True)
class Partner(Client):
    """A partner: its client, and its webhook secret."""

    slug: str = ""
    webhook_secret: str = ""

    def hook(self, event: object, webhook_id: str) -> httpx.Response:
        """Send a webhook, signed by the independent library."""
        body = json.dumps(event)
        at = datetime.now(UTC)
        signature = Webhook(self.webhook_secret).sign(webhook_id, at, body)
        return self.http.post(
            f"/hooks/{self.slug}",
            content=body,
            headers={
                "webhook-id": webhook_id,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": signature,
            },
        )

    def processed(self, delivery: str) -> Any:
        """What became of a delivery, once it is processed."""

        def ask() -> Any:
            shown = self.get(f"/v1/deliveries/{delivery}")
            return None if shown["state"] == "queued" else shown

        return until(ask, f"{delivery} was processed")

    def delivered(self, event: object, webhook_id: str) -> Any:
        """Send a webhook that must be accepted, and wait for what becomes of it."""
        answer = self.hook(event, webhook_id)
        assert answer.status_code == 202, answer.text
        return self.processed(answer.json()["id"])

    def remittance(self, remittance_id: str) -> Any:
        """The remittance of the partner's own id."""
        found = self.get("/v1/remittances", remittance_id=remittance_id)
        assert found["next_cursor"] is None
        (remittance,) = found["data"]
        return remittance

    def member(self, number: int, product: str = "savings", **changes: Any) -> str:
        """A registered member, enrolled with the contract's choice; its id."""
        member: str = self.post("/v1/members", a_person(number, **changes))["id"]
        self.post(f"/v1/members/{member}/enrolments", {"product": product, "choice": {"percent": "5"}})
        return member

    def balances(self, member: str) -> Any:
        """A member's balances."""
        return self.get(f"/v1/members/{member}/balances")


@dataclass(slots=True)
class Deployment:
    """A running deployment, and its operator's command line."""

    url: str
    http: httpx.Client
    environment: dict[str, str]
    processes: Serving

    def mizan(self, command: str, code: int = 0) -> Any:
        """Run a command with `--json`, as an operator would type it; what it prints."""
        done = subprocess.run(
            [str(MIZAN), *shlex.split(command), "--json"],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def partner(self, made: dict[str, str]) -> Partner:
        """The partner that `mizan partner create` has made."""
        return Partner(
            self.http,
            made["client_id"],
            made["client_secret"],
            slug=made["slug"],
            webhook_secret=made["webhook_secret"],
        )

    def staff(self, role: str) -> Client:
        """A client of staff."""
        made = self.mizan(f"client create our-{role} --role {role}")
        return Client(self.http, made["client_id"], made["client_secret"])


@contextmanager
def deployed(settings: Settings, **changes: object) -> Iterator[Deployment]:
    """Serve on complete settings; the schedule is quicker than in earnest, and nothing vests by itself."""
    quick = {"sweep_seconds": 0.3, "fold_seconds": 0.5, "seal_seconds": 0.5, "metrics_port": 0}
    quick |= {"vest_seconds": 3600.0}  # when match vests is the test's to say: `mizan match vest`
    listener = serving.listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    chosen = settings.model_copy(update={**quick, "public_url": url, **changes})
    processes = Serving(chosen, listener)
    processes.start()
    try:
        with httpx.Client(base_url=url, timeout=30) as http:
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("MIZAN_")}
            yield Deployment(url, http, inherited | chosen.variables(), processes)
    finally:
        processes.stop()
