"""`docs/reference/events.md`, from the catalogue: ``python -m api.events_reference > docs/reference/events.md``."""

import json
import sys
from typing import Final, get_args

from api.openapi_webhooks import model_name
from api.v1.event_shapes import SHAPES, example
from integrations.outbound.attempts import FAILING_MAX, LEASE, SCHEDULE
from integrations.outbound.catalogue import CATALOGUE, EventType, Shape
from integrations.outbound.endpoints import ENDPOINTS_MAX, ROTATION_OVERLAP
from integrations.outbound.queries import REPLAYED_MAX

_SHOWN: Final[dict[Shape, EventType]] = {
    "remittance": "remittance.allocated",
    "contributions": "contributions.settled",
    "contributions-returned": "contributions.returned",
    "settlement": "settlement.returned",
    "remittal": "remittal.returned",
    "match": "match.accrued",
    "vesting": "match.vested",
    "cover": "cover.changed",
    "payout": "payout.failed",
    "endpoint": "endpoint.disabled",
}


def render() -> str:
    """The page."""
    lines = [_HEAD]
    for name, kind in CATALOGUE.items():
        sent = "" if kind.sent else " **Not sent yet.**"
        lines.append(f"| `{name}` | [{kind.shape}](#{kind.shape}) | {kind.meaning.rstrip()}{sent} |")
    lines += ["", _RULES.strip(), ""]
    for shape in get_args(Shape):
        model, type_ = SHAPES[shape], _SHOWN[shape]
        lines += [f"## {shape}", "", f"{model.__doc__} In OpenAPI: `{model_name(type_)}`.", "", "```json"]
        lines += [json.dumps(example(type_), indent=1, ensure_ascii=False), "```", ""]
        described = [
            f"- `{field}`: {info.description}"
            for field, info in model.model_fields.items()
            if info.description
        ]
        if described:
            lines += [*described, ""]
    return "\n".join(lines).rstrip() + "\n"


def _wait(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"


_WAITS: Final = ", ".join(_wait(one.total_seconds()) for one in SCHEDULE[1:])

_HEAD: Final = """# Events

Generated from the code by `python -m api.events_reference`; change `integrations/outbound/catalogue.py` and
`api/v1/event_shapes.py` instead. How to receive them: [receive events](../how-to/receive-events.md).

Each partner is told of what came through it, by its own ids, and of nothing else. No event holds personal data. The same
event stands in the feed (`GET /v1/events`) and is delivered to endpoints; `webhooks` of `/openapi.json` has a schema of each.

| type | data | when |
|---|---|---|"""

_RULES: Final = f"""
## What you can rely on

- **Ids**: an event has one id (`evt_…`) for ever: in the feed, in every attempt (`webhook-id`), after a replay. Its body is the same
  byte for byte; `webhook-timestamp` and the signature are new in each attempt.
- **At least once**: a crash on either side may send an event again. Take an id once.
- **In order per member**: a member's next event is sent to an endpoint only when the one before it there was delivered or given up.
  While one is being retried, that member's later ones wait; other members' don't. An event without a known member is in the order of
  what it is about. Given up means: after the last attempt, or because the endpoint was disabled. A replayed event goes before
  those of its member that wait.
- **Attempts**: at once, then {_WAITS} after the attempt before, each a tenth more or less; never sooner than a `Retry-After` of up
  to a day. Only 2xx is success: a redirect is a failure and is not followed. An attempt has 20 seconds, from looking up the name to the headers of
  your answer; its body is not kept. After the {len(SCHEDULE)}th the delivery is `failed`: kept, and replayable.
- **Nobody waits for another**: a slow or dead endpoint has few connections of its own.
- **410** disables the endpoint at once, and {FAILING_MAX.days} days in which nothing arrived do too: you are told by `endpoint.disabled` in the feed and at
  your other endpoints, and `state` and `reason` say so. While it is disabled nothing is queued for it; what waited is given up.
  Enable it, then replay.
- **Replay**: one event, or all since a time (at most {REPLAYED_MAX:,} in one request; `next_cursor` leads on), with the same ids.
- **Kept** for 90 days (`MIZAN_EVENT_RETENTION_DAYS`): events, deliveries and each attempt's time, status, duration and error.
- **Secrets**: yours for each endpoint, shown once; never the one that you sign with. After a rotation both sign for {ROTATION_OVERLAP.days} day.
- **Folded**: an event that would only repeat what the last of its type said of the same thing is not sent.
- A sender that is killed is followed by another {LEASE.seconds} seconds later at most.

| | at most |
|---|---|
| endpoints of a partner | {ENDPOINTS_MAX} |
| URL | 2048 characters; `https`, a public domain name, port 443; no user, password or fragment |
| connections to an endpoint, of each worker process | 16; 2 while it fails |

## Where we connect

The name is looked up for each connection, and every address that comes back must be a public one: private, loopback, link-local,
carrier, multicast, documentation, IPv4-in-IPv6 (mapped, NAT64, 6to4, Teredo) and clouds' metadata addresses are refused, and one such address
refuses them all. We connect to the very address that was checked, with your name in SNI and `Host`, and believe public authorities'
certificates alone. In a sandbox `http://127.0.0.1:port` is allowed too.
"""


if __name__ == "__main__":
    sys.stdout.write(render())
