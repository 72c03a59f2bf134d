"""Traces that follow a delivery from the hook to the outbox, sent by OTLP; nothing of it exists unless a URL is set.

A delivery's trace id *is* its id, and the span id of its hook follows from it. So the hook, the batch of a worker and
whoever reads the outbox meet in one trace without storing or handing on a word, also across a restart. Spans are made
when what they tell is known: the hook's after its commit, the worker's with the commit of its batch, so that a batch
which is undone leaves none. They hold ids, states and reasons; never a body, an address or a header.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes
from sqlalchemy import event

from api.settings import Settings
from integrations.inbox.received import Received
from integrations.inbox.store import Receipt
from ledger.database import Tx, cursor
from ledger.ids import public_id
from products.remittances.process import Delivery, Verdict

LINKS_MAX: Final = 128
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")

Process = Callable[[Tx, Sequence[Delivery]], Sequence[Verdict]]


def trace_id(delivery: UUID) -> int:
    """The trace of a delivery: its own 128 bits."""
    return delivery.int


def hook_span_id(delivery: UUID) -> int:
    """The span in which the hook took it in."""
    return int.from_bytes(hashlib.sha256(b"hook" + delivery.bytes).digest()[:8], "big") or 1


class _Ids(IdGenerator):
    """Random ids, but for spans whose ids are known before them."""

    def __init__(self) -> None:
        self.next: ContextVar[tuple[int, int] | None] = ContextVar("next span", default=None)
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        """The id of a new trace."""
        known = self.next.get()
        return self._random.generate_trace_id() if known is None else known[0]

    def generate_span_id(self) -> int:
        """The id of a new span."""
        known = self.next.get()
        return self._random.generate_span_id() if known is None else known[1]


class Share(Sampler):
    """A share of all traces, each whole: every process decides alike, from the trace's id alone."""

    def __init__(self, share: float) -> None:
        self._below = int(share * 2**64)

    def should_sample(
        self,
        parent_context: Context | None,  # noqa: ARG002  the signature is the library's
        trace_id: int,
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: Any = None,
    ) -> SamplingResult:
        """Whether this span is kept. The id's own bits say when it was made: they are mixed first."""
        mixed = int.from_bytes(hashlib.sha256(trace_id.to_bytes(16, "big")).digest()[:8], "big")
        decision = Decision.RECORD_AND_SAMPLE if mixed < self._below else Decision.DROP
        return SamplingResult(decision, attributes, trace_state)

    def get_description(self) -> str:
        """What it is called."""
        return "a share of deliveries"


class Traces:
    """The traces of one process. `close` sends what is left."""

    def __init__(self, settings: Settings, process: str, url: str) -> None:
        self._ids = _Ids()
        environment = settings.environment.value if settings.environment else "unknown"
        self._provider = TracerProvider(
            sampler=Share(settings.traces_share),
            resource=Resource(
                {
                    "service.name": "mizan",
                    "service.namespace": process,
                    "deployment.environment.name": environment,
                }
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=5)))
        self._tracer = self._provider.get_tracer("mizan")

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()

    def received(self, received: Received, receipt: Receipt, began: int, traceparent: str | None) -> None:
        """A delivery was answered. `began` is in nanoseconds since 1970; `traceparent` is the sender's header."""
        links = [] if traceparent is None else _links_of(traceparent)
        if receipt.id != received.id:
            links.append(Link(_hook_of(receipt.id)))  # a repetition points to what it repeats
        token = self._ids.next.set((trace_id(received.id), hook_span_id(received.id)))
        try:
            span = self._tracer.start_span(
                "hook",
                context=Context(),
                kind=SpanKind.SERVER,
                start_time=began,
                links=links,
                attributes={
                    "mizan.delivery": public_id("dlv", receipt.id),
                    "mizan.partner": public_id("ptn", received.partner_id),
                    "mizan.kind": received.kind,
                    "mizan.outcome": receipt.status,
                },
            )
        finally:
            self._ids.next.reset(token)
        span.end()

    def followed(self, process: Process) -> Process:
        """`process`, telling what became of each delivery once its batch is committed."""

        def following(tx: Tx, batch: Sequence[Delivery]) -> Sequence[Verdict]:
            began = time.time_ns()
            verdicts = process(tx, batch)
            decided = time.time_ns()
            messages = _messages(tx)

            def committed(_: Tx) -> None:
                self._decided(batch, verdicts, messages, began, decided)

            event.listen(tx, "commit", committed, once=True)
            return verdicts

        return following

    def _decided(
        self,
        batch: Sequence[Delivery],
        verdicts: Sequence[Verdict],
        messages: dict[str, list[tuple[UUID, str]]],
        began: int,
        decided: int,
    ) -> None:
        whole = self._tracer.start_span(
            "batch",
            context=Context(),
            kind=SpanKind.CONSUMER,
            start_time=began,
            links=[Link(_hook_of(one.id)) for one in batch[:LINKS_MAX] if one.id is not None],
            attributes={"mizan.deliveries": len(batch)},
        )
        for delivery, verdict in zip(batch, verdicts, strict=True):
            if delivery.id is None:  # came by no hook
                continue
            attributes = {"mizan.delivery": public_id("dlv", delivery.id), "mizan.state": verdict.state}
            if verdict.reason is not None:
                attributes["mizan.reason"] = verdict.reason
            remittance = None if verdict.remittance is None else public_id("rmt", verdict.remittance)
            if remittance is not None:
                attributes["mizan.remittance"] = remittance
            span = self._tracer.start_span(
                "decide",
                context=set_span_in_context(NonRecordingSpan(_hook_of(delivery.id)), Context()),
                kind=SpanKind.CONSUMER,
                start_time=began,
                links=[Link(whole.get_span_context())],
                attributes=attributes,
            )
            for message, topic in messages.get(remittance or "", ()):
                self._tracer.start_span(
                    "outbox",
                    context=set_span_in_context(span, Context()),
                    kind=SpanKind.PRODUCER,
                    start_time=decided,
                    attributes={"mizan.message": str(message), "mizan.topic": topic},
                ).end()
            span.end()
        whole.end()


def _hook_of(delivery: UUID) -> SpanContext:
    return SpanContext(trace_id(delivery), hook_span_id(delivery), True, TraceFlags(TraceFlags.SAMPLED))


def _links_of(traceparent: str) -> list[Link]:
    """The sender's own span, if it says a good one (W3C Trace Context)."""
    found = _TRACEPARENT.match(traceparent)
    if found is None:
        return []
    theirs = SpanContext(
        int(found[1], 16), int(found[2], 16), True, TraceFlags(int(found[3], 16) & TraceFlags.SAMPLED)
    )
    return [Link(theirs)] if theirs.is_valid else []


def _messages(tx: Tx) -> dict[str, list[tuple[UUID, str]]]:
    """What this transaction has written into the outbox, by the remittance that it is about."""
    found: dict[str, list[tuple[UUID, str]]] = {}
    rows = cursor(tx).execute(
        "SELECT payload->>'remittance', id, topic FROM ledger.outbox"
        " WHERE era = ledger.current_era() AND xid = pg_current_xact_id_if_assigned()"
    )
    for remittance, message, topic in rows:
        found.setdefault(remittance or "", []).append((message, topic))
    return found
