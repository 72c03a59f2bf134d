"""Endpoints and events over the API: a partner registers, is told, looks, replays, and follows the feed; nobody else's."""

from datetime import timedelta
from typing import Any

import httpx

from api.jobs import expand_events
from api.openapi_webhooks import model_name
from api.v1.event_shapes import EXAMPLES, SHAPES, example
from integrations.outbound.catalogue import CATALOGUE
from integrations.outbound.delivery import Deliverer, Delivering
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret, verify
from tests.http.served import Served, a_person
from tests.integration.outbound.receiver import Reply, receiving

RETENTION = timedelta(days=90)
PUBLIC = "https://hooks.acme.example/mizan"


def register(api: Served, url: str = PUBLIC, **more: Any) -> dict[str, Any]:
    answer = api.acme.post("/v1/webhook-endpoints", {"url": url} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def send(api: Served, member: str, number: int) -> str:
    body = {
        "remittance_id": f"E-{number}",
        "member": {"id": member},
        "sent": {"amount": 50_000, "currency": "AED"},
        "received": {"amount": 400_000, "currency": "RWF"},
        "collected": {"amount": 20_000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:29:41Z",
    }
    answer = api.acme.post("/v1/remittances", body, headers={"Idempotency-Key": f"k-{number}"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def tell(api: Served) -> None:
    """What the workers do."""
    services = api.services
    deliverer = Deliverer(
        Delivering(services.worker, services.keyring, api.clock, loopback=services.loopback_endpoints)
    )
    expand_events(services.worker, api.clock, RETENTION, deliverer)
    deliverer.wake()
    assert deliverer.wait(20)
    deliverer.close()


def a_member(api: Served) -> str:
    member = str(api.acme.post("/v1/members", a_person()).json()["id"])
    api.acme.post(f"/v1/members/{member}/enrolments", {"product": "savings", "choice": {"percent": "5"}})
    return member


def test_a_partner_is_told_at_its_endpoint_and_in_its_feed_and_sends_again(api: Served) -> None:
    member = a_member(api)
    with receiving() as receiver:
        endpoint = register(api, receiver.url, description="mine")
        path = f"/v1/webhook-endpoints/{endpoint['id']}"
        remittance = send(api, member, 1)
        tell(api)
        types = [one.event["type"] for one in receiver.got]
        assert types == ["remittance.allocated", "match.accrued"]
        told = receiver.got[0]
        secret = parse_secret(endpoint["secret"])
        assert isinstance(secret, SymmetricSecret)
        assert verify(told.headers, told.body, [secret], api.clock.now()) == told.id
        assert told.event["data"] == api.acme.get(f"/v1/remittances/{remittance}").json()

        # our own hook takes nothing that we have signed, from whoever reflects it
        reflected = httpx.post(f"{api.url}/hooks/acme", content=told.body, headers=dict(told.headers))
        assert reflected.status_code == 401

        # the feed has the same, whole and by filter
        feed = api.acme.get("/v1/events").json()
        assert feed["data"] == [one.event for one in receiver.got]
        assert api.acme.get(f"/v1/events/{told.id}").json() == told.event
        one_by_one = api.acme.get("/v1/events?limit=1").json()
        rest = api.acme.get(f"/v1/events?limit=1&cursor={one_by_one['next_cursor']}").json()
        assert one_by_one["data"] + rest["data"] == feed["data"]
        assert rest["next_cursor"] is None
        for query, found in (
            ("type=match.accrued", 1),
            ("type=match.accrued&type=remittance.allocated", 2),
            (f"member={member}", 2),
            ("member=mem_00000000000000000000000000", 0),
            (f"after={told.id}", 1),
            (f"after={receiver.got[1].id}", 0),
        ):
            assert len(api.acme.get(f"/v1/events?{query}").json()["data"]) == found, query
        send(api, member, 2)
        tell(api)
        assert (
            len(api.acme.get(f"/v1/events?after={receiver.got[1].id}").json()["data"]) == 1
        )  # the match has its cap

        # history, and again
        listed = api.acme.get(f"{path}/deliveries?state=delivered&limit=2").json()
        assert [one["event"] for one in listed["data"]] == receiver.ids[:0:-1]
        more = api.acme.get(
            f"{path}/deliveries?state=delivered&limit=2&cursor={listed['next_cursor']}"
        ).json()
        assert [one["event"] for one in more["data"]] == receiver.ids[:1]
        assert api.acme.get(f"{path}/deliveries?state=failed").json()["data"] == []
        again = api.acme.post(f"{path}/deliveries/{told.id}/replay")
        assert (again.status_code, again.json()["state"]) == (202, "waiting")
        receiver.reply = lambda _: Reply(503)
        tell(api)
        history = api.acme.get(f"{path}/deliveries/{told.id}").json()
        assert [(one["number"], one["status"], one["error"]) for one in history["history"]] == [
            (1, 204, None),
            (2, 503, "status"),
        ]
        assert (history["state"], history["last_status"]) == ("waiting", 503)
        assert api.acme.get(path).json()["failing_since"] is not None

        # disabled, enabled, and what did not arrive
        disabled = api.acme.post(f"{path}/disable").json()
        assert (disabled["state"], disabled["reason"]) == ("disabled", "asked")
        refused = api.acme.post(f"{path}/replay", {"since": "2026-01-01T00:00:00Z"})
        assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")
        given_up = api.acme.get(f"{path}/deliveries?state=failed").json()["data"]
        assert [(one["event"], one["reason"]) for one in given_up] == [(told.id, "endpoint_disabled")]
        receiver.reply = lambda _: Reply()
        enabled = api.acme.post(f"{path}/enable").json()
        assert (enabled["state"], enabled["reason"], enabled["failing_since"]) == ("enabled", None, None)
        since = {"since": "2026-01-01T00:00:00Z", "which": "failed"}
        assert api.acme.post(f"{path}/replay", since).json() == {"queued": 1, "next_cursor": None}
        tell(api)
        assert receiver.ids[-1] == told.id
        audited = api.rows(
            "SELECT action, count(*)::int FROM ledger.audit_entry WHERE action LIKE 'endpoint.%%' GROUP BY 1"
        )
        assert dict(audited) == {  # the refused replay is in it as a refusal of its own
            "endpoint.created": 1,
            "endpoint.disabled": 1,
            "endpoint.enabled": 1,
            "endpoint.replayed": 2,
        }


def test_endpoints_are_changed_rotated_and_removed_and_are_their_partners_alone(api: Served) -> None:
    made = register(api, event_types=["payout.paid"])
    secret = made.pop("secret")
    path = f"/v1/webhook-endpoints/{made['id']}"
    assert secret.startswith("whsec_")
    assert api.acme.get(path).json() == made
    assert api.acme.get("/v1/webhook-endpoints").json() == {"data": [made], "next_cursor": None}
    changed = api.acme.call("PATCH", path, {"event_types": [], "description": "all"}).json()
    assert (changed["url"], changed["event_types"], changed["description"]) == (PUBLIC, [], "all")
    rotated = api.acme.post(f"{path}/secret")
    assert rotated.status_code == 201
    assert rotated.json()["secret"] not in (secret, api.webhook_secret)
    assert rotated.json()["former_expires_at"] == "2026-03-03T09:30:00Z"
    for method, end, body in (
        ("GET", "", None),
        ("PATCH", "", {"description": "theirs"}),
        ("DELETE", "", None),
        ("POST", "/secret", None),
        ("POST", "/disable", None),
        ("POST", "/enable", None),
        ("GET", "/deliveries", None),
        ("POST", "/replay", {"since": "2026-01-01T00:00:00Z"}),
    ):
        answer = api.bolt.call(method, path + end, body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, end)
    assert api.bolt.get("/v1/webhook-endpoints").json()["data"] == []
    assert api.auditor.get("/v1/webhook-endpoints").status_code == 403
    for number in range(9):
        register(api, f"{PUBLIC}/{number}")
    full = api.acme.post("/v1/webhook-endpoints", {"url": PUBLIC})
    assert (full.status_code, full.json()["code"]) == (409, "endpoint_limit")
    assert api.acme.call("DELETE", path).status_code == 204
    assert api.acme.get(path).status_code == 404
    register(api)


def test_what_is_not_a_partners_public_url_is_refused_with_the_reason(api: Served) -> None:
    for url in (
        "http://hooks.acme.example/",
        "https://10.0.0.1/",
        "https://hooks.acme.example:8443/",
        "https://a@b.example/",
    ):
        answer = api.acme.post("/v1/webhook-endpoints", {"url": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "endpoint_url_refused"), url
    made = register(api)
    answer = api.acme.call("PATCH", f"/v1/webhook-endpoints/{made['id']}", {"url": "http://169.254.169.254/"})
    assert answer.json()["code"] == "endpoint_url_refused"
    for body in (
        {"url": PUBLIC, "event_types": ["nothing.happened"]},
        {"url": PUBLIC, "secret": "whsec_x"},
        {},
    ):
        assert api.acme.post("/v1/webhook-endpoints", body).status_code == 422
    for path in ("/v1/events/evt_00000000000000000000000000", "/v1/events/rmt_1", "/v1/events?after=evt_x"):
        assert api.acme.get(path).status_code == 404
    assert api.acme.get("/v1/events?type=x").status_code == 422


def test_the_document_has_each_event_with_schema_and_example(api: Served) -> None:
    document = api.http.get("/openapi.json").json()
    assert set(document["webhooks"]) == set(CATALOGUE)
    for shape, shown in EXAMPLES.items():
        SHAPES[shape].model_validate(shown)
    for type_, path in document["webhooks"].items():
        content = path["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{model_name(type_)}"}
        schema = document["components"]["schemas"][model_name(type_)]
        assert schema["properties"]["type"]["const"] == type_ == content["example"]["type"]
        SHAPES[CATALOGUE[type_].shape].model_validate(example(type_)["data"])
