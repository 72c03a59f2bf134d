"""Messages by a signed POST to the deployment's own SMS gateway: the contract is in `docs/reference/member-proof.md`.

The body is ``{"type": "message.send", "timestamp", "data": {"to", "text", "language"}}``, signed as Standard Webhooks 1.0.
The id stays the same over the tries of one message, so that a gateway which got it twice sends it once.
"""

import json
import time
from collections.abc import Callable
from typing import Final

import httpx

from integrations.partners.standard_webhooks import SymmetricSecret, sign
from ledger.clock import Clock, rfc3339
from ledger.ids import new_id, public_id
from products.members.challenges import CodeNotSent

TRIES_MAX: Final = 3
WAIT_SECONDS: Final = (0.2, 1.0)
"""Before the second try and the third. A code is worth ten minutes: who hasn't got it by then asks again."""


class WebhookSender:
    """Posts each message to `url` and takes any 2xx for accepted. Redirects are not followed: they would leave the contract.

    A try that meets no server, a time-out, 429 or 5xx is repeated; any other answer is final.
    """

    def __init__(
        self,
        url: str,
        secret: SymmetricSecret,
        clock: Clock,
        *,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._wait = wait
        self._http = httpx.Client(timeout=timeout_seconds, follow_redirects=False, transport=transport)

    def send(self, to: str, text: str, language: str) -> None:
        """Post one message, at most three times. Raises `CodeNotSent`."""
        message_id = public_id("msg", new_id())
        problem = ""
        for attempt in range(TRIES_MAX):
            if attempt:
                self._wait(WAIT_SECONDS[attempt - 1])
            try:
                answer = self._post(message_id, to, text, language)
            except httpx.HTTPError as error:
                problem = type(error).__name__
                continue
            if answer.is_success:
                return
            problem = f"http_{answer.status_code}"
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and not answer.is_server_error:
                break
        raise CodeNotSent(problem)

    def _post(self, message_id: str, to: str, text: str, language: str) -> httpx.Response:
        now = self._clock.now()
        body = json.dumps(
            {
                "type": "message.send",
                "timestamp": rfc3339(now),
                "data": {"to": to, "text": text, "language": language},
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": sign(self._secret, message_id, now, body),
        }
        # closed at once: of the answer only the status counts, and nobody reads what a gateway may pour out
        with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
            return answer
