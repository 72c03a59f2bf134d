"""Partners' systems in little: webhooks signed by the independent library, over HTTP, with bounded concurrency."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
from standardwebhooks import Webhook

from api.demo.events import Planned

CONNECTIONS: Final = 32
ANSWER_SECONDS_MAX: Final = 30
ATTEMPTS_MAX: Final = 5
NOBODYS_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  published in the standard's own test vector
RETRIED: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answered:
    """What a delivery was answered, and after how many seconds."""

    planned: Planned
    status: int
    answer: Mapping[str, Any]
    seconds: float


def send(
    url: str, planned: Sequence[Planned], secrets: Mapping[str, str], progress: Callable[[int], None]
) -> list[Answered]:
    """Send deliveries over `CONNECTIONS` connections and gather the answers, in the order in which they came.

    ``progress`` is told how many were answered. A busy service (503, 429) is asked again, as partners do.
    """
    return asyncio.run(_send(url, planned, secrets, progress))


async def _send(
    url: str, planned: Sequence[Planned], secrets: Mapping[str, str], progress: Callable[[int], None]
) -> list[Answered]:
    signers = {slug: Webhook(secret) for slug, secret in secrets.items()}
    nobody = Webhook(NOBODYS_SECRET)
    answered: list[Answered] = []
    waiting: Iterator[Planned] = iter(planned)

    async def partner(session: aiohttp.ClientSession) -> None:
        for one in waiting:
            answered.append(await _deliver(session, url, one, signers.get(one.signed_by or "", nobody)))
            progress(len(answered))

    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(partner(session) for _ in range(CONNECTIONS)))
    return answered


async def _deliver(session: aiohttp.ClientSession, url: str, one: Planned, signer: Webhook) -> Answered:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        at = datetime.now(UTC) - timedelta(seconds=one.seconds_old)
        headers = {
            "content-type": "application/json",
            "webhook-id": one.webhook_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign(one.webhook_id, at, one.body.decode()),
        }
        began = time.perf_counter()
        async with session.post(f"{url}/hooks/{one.slug}", data=one.body, headers=headers) as response:
            answer: Any = await response.json(content_type=None)
            seconds = time.perf_counter() - began
            if response.status not in RETRIED or attempt == ATTEMPTS_MAX:
                return Answered(one, response.status, answer if isinstance(answer, dict) else {}, seconds)
        await asyncio.sleep(0.2 * attempt)
    raise AssertionError("the last attempt answers")
