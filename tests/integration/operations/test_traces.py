"""A delivery's trace, from the hook through a worker's batch to the outbox, as a real collector receives it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.sampling import Decision

from api.observability import tracing
from api.observability.traces import Share, Traces
from api.settings import Settings
from integrations.inbox.drain import drain
from ledger.clock import FixedClock
from ledger.ids import new_id, parse_public_id
from products.remittances.process import process
from tests import planted
from tests.conftest import Databases
from tests.http.hooked import Signer, completed
from tests.http.served import a_person, served


@dataclass
class Collector:
    """What was sent to it."""

    url: str
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Every span, in the order of its beginning."""
        found = [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def of(self, delivery: UUID) -> dict[str, Span]:
        """A delivery's trace, by the spans' names."""
        return {span.name: span for span in self.spans if span.trace_id == delivery.bytes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that speaks OTLP over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def test_a_deliverys_trace_goes_from_the_hook_to_the_outbox(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with collecting() as collector:
        with served(settings, databases.worker, clock, traces_url=collector.url) as api:
            assert api.acme.post("/v1/members", a_person()).status_code == 201
            assert api.acme.partner is not None
            signer = Signer(api.acme.partner, "acme", api.webhook_secret, clock, api.http)
            event = completed(
                member={"phone": a_person()["phone"]},
                received={"amount": 400_000, "currency": "RWF"},
                collected={"amount": 20_000, "currency": "RWF"},
                destination_country="RW",
                completed_at=clock.now().isoformat(),
            )
            first = signer.send(event, "msg_1", headers={"traceparent": theirs})
            again = signer.send(event, "msg_1")
            unknown = signer.send(completed(remittance_id="X", member={"phone": planted.PHONE}), "msg_2")
            assert {one.status_code for one in (first, again, unknown)} == {202}
            traces = Traces(settings, "worker", collector.url)
            decide = traces.followed(partial(process, books=api.services.books))
            drain(databases.worker, decide, clock, api.services.keyring)
            traces.close()
            messages = {row[0]: row[1] for row in api.rows("SELECT id::text, topic FROM ledger.outbox")}
        delivery = parse_public_id("dlv", first.json()["id"])
        found = collector.of(delivery)
        assert list(found) == ["hook", "decide", "outbox"]
        hook, decided, outbox = found.values()
        assert (hook.parent_span_id, decided.parent_span_id, outbox.parent_span_id) == (
            b"",
            hook.span_id,
            decided.span_id,
        )
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in hook.links] == [
            tuple(theirs.split("-")[1:3])
        ]
        assert attributes(hook)["mizan.outcome"] == "stored"
        assert attributes(decided)["mizan.state"] == "posted"
        told = attributes(outbox)
        assert messages[told["mizan.message"]] == told["mizan.topic"] == "remittance.allocated"
        (batch,) = [span for span in collector.spans if span.name == "batch"]
        assert {link.trace_id for link in batch.links} == {
            delivery.bytes,
            parse_public_id("dlv", unknown.json()["id"]).bytes,
        }
        assert decided.links[0].span_id == batch.span_id
        (repeated,) = [
            span for span in collector.spans if attributes(span).get("mizan.outcome") == "duplicate"
        ]
        assert repeated.links[0].span_id == hook.span_id  # it points to what it repeats
        for body in collector.bodies:
            assert not planted.PERSONAL.search(body.decode("latin-1"))


def test_a_batch_that_is_undone_leaves_no_trace(settings: Settings, databases: Databases) -> None:
    with collecting() as collector:
        traces = Traces(settings, "worker", collector.url)
        nothing = traces.followed(lambda _tx, _batch: ())
        with suppress(ZeroDivisionError), databases.worker.begin() as tx:
            nothing(tx, [])
            _ = 1 / 0
        with databases.worker.begin() as tx:
            nothing(tx, [])
        traces.close()
    assert [span.name for span in collector.spans] == ["batch"]


def test_a_share_of_the_deliveries_is_traced_by_every_process_alike() -> None:
    deliveries = [new_id() for _ in range(2_000)]
    kept = [
        {
            one
            for one in deliveries
            if Share(share).should_sample(None, one.int, "x").decision is Decision.RECORD_AND_SAMPLE
        }
        for share in (0.0, 0.25, 0.5, 1.0)
    ]
    assert kept[0] == set()
    assert kept[3] == set(deliveries)
    assert kept[1] < kept[2]
    assert 350 < len(kept[1]) < 650


def test_without_a_url_nothing_of_it_is_there(settings: Settings) -> None:
    assert tracing(settings, "api") is None
