"""Stripe's webhook events: proved first, read after.

``Stripe-Signature: t=…,v1=hex[,v1=…]``: HMAC-SHA-256 over ``t.body``, keyed with the whole ``whsec_…`` string. The library's own
check refuses the past only; ours refuses a time more than 300 s away in both directions, and takes several secrets, as they
rotate and as a platform has one endpoint for itself and one for its connected accounts.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from integrations.strict_json import NotStrictJson, loads
from products.payouts.rails import Callback, CallbackMalformed, CallbackRefused

TOLERANCE: Final = timedelta(seconds=300)
SECRETS_MAX: Final = 4
_ENTRIES_MAX: Final = 16
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """An event that is Stripe's: `about` is the object as it stood then, `account` the connected account that it happened on."""

    kind: str
    about: Mapping[str, Any]
    account: str | None
    livemode: bool
    at: datetime


def verify(header: str, body: bytes, secrets: Sequence[str], now: datetime) -> None:
    """Raises `CallbackRefused` unless one of the `secrets` signed `body` within five minutes of `now`."""
    times, signatures = [], []
    for entry in header.split(",", _ENTRIES_MAX)[:_ENTRIES_MAX]:
        name, _, value = entry.strip().partition("=")
        if name == "t":
            times.append(value)
        elif name == "v1":
            signatures.append(value.encode("latin-1", "replace"))
    at = times[0] if len(times) == 1 and _SECONDS.fullmatch(times[0]) else ""
    signed = b"%b.%b" % (at.encode(), body)
    proven = False
    for secret in secrets:
        wanted = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        for signature in signatures:
            proven |= hmac.compare_digest(wanted, signature)
    if not (at and proven):
        raise CallbackRefused("no signature of Stripe's")
    if abs(now.timestamp() - int(at)) > TOLERANCE.total_seconds():
        raise CallbackRefused("signed at another time")


def read_event(callback: Callback, secrets: Sequence[str], now: datetime) -> StripeEvent:
    """The event of a callback. Raises `CallbackRefused` for what is not Stripe's, `CallbackMalformed` for what can't be read."""
    verify(callback.headers.get("stripe-signature", ""), callback.body, secrets, now)
    if callback.method != "POST":
        raise CallbackRefused("events are posted")
    try:
        event = loads(callback.body)
    except NotStrictJson as error:
        raise CallbackMalformed(f"not strict JSON: {error}") from None
    match event:
        case {"type": str(kind), "created": int(created), "data": {"object": dict(about)}} if (
            0 < created < 10**11
        ):
            account, livemode = event.get("account"), event.get("livemode")
            if account is not None and not isinstance(account, str):
                raise CallbackMalformed("an account's id is text")
            if not isinstance(livemode, bool):
                raise CallbackMalformed("an event says whether it is live")
            return StripeEvent(kind, about, account, livemode, datetime.fromtimestamp(created, UTC))
    raise CallbackMalformed("not one of Stripe's events: it has a type, a time and an object")
