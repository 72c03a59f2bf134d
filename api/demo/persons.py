"""Two managers of the fund, who set themselves up by one-time links and log in with a password and an authenticator's code."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Final

import pyotp

from api.auth import links, operators
from api.auth.operators import Grant
from api.bootstrap import Services
from api.demo.client import Client
from ledger.database import Tx
from ledger.errors import Unavailable

NAMES: Final = ("Keza", "Mugisha")
STEP_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Manager:
    """A person with an open session."""

    name: str
    api: Client

    def refused(self, path: str, body: Mapping[str, object]) -> str:
        """The code with which what this person sends is refused; empty when it isn't."""
        status, answer = self.api.answer("POST", path, body)
        return "" if status < 400 else str(json.loads(answer)["code"])


def managers(services: Services, url: str) -> tuple[Manager, Manager]:
    """The two: one asks, the other approves."""
    first, second = (_arrives(services, url, name) for name in NAMES)
    return first, second


def _arrives(services: Services, url: str, name: str) -> Manager:
    """A manager is brought in, as if two administrators had done it, sets up by the link and the code that they gave, and logs in."""
    email, password = f"{name.lower()}@fund.example", token_urlsafe(18)
    now = services.clock.now()
    code, digest = links.new_code()

    def bring_in(tx: Tx) -> str:
        made = operators.create(
            tx,
            email=email,
            name=name,
            grants=[Grant("manager", None)],
            organisation_id=None,
            log_in="password",
            at=now,
        )
        links.prepare(tx, made, digest, "the demo's first administrator", now)
        return links.draw(tx, made, "the demo's second administrator", now).token

    link = {"token": services.worker.run(bring_in)}
    secret = pyotp.TOTP(str(_said(url, "/v1/set-up", link)["secret"]))
    # a code counts once, and neither it nor one before it again: the first is that of the step before
    first = secret.at(int(time.time()) - STEP_SECONDS)
    _said(url, "/v1/set-up/completion", {**link, "code": code, "password": password, "totp": first})
    opened = _said(url, "/v1/session", {"email": email, "password": password, "totp": secret.now()})
    return Manager(name, Client(url, {"authorization": f"Bearer {opened['token']}"}))


def _said(url: str, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
    """What is answered to someone who holds no session yet."""
    status, answer = Client(url, {}).answer("POST", path, body)
    if status >= 400:
        raise Unavailable(f"POST {path} was answered {status}: {answer[:300].decode('utf-8', 'replace')}")
    return dict(json.loads(answer))
