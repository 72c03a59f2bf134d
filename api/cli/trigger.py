"""`mizan trigger EVENT`: send a signed test webhook to a running service, as a partner would."""

import http.client
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from standardwebhooks import Webhook

from api.bootstrap import Services
from api.cli import output, session
from api.cli.serve import running_url
from api.settings import Environment
from integrations.partners.secrets import newest_secret
from ledger.ids import new_id
from products.remittances import partners

ANSWER_SECONDS_MAX = 30


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Try")(session.command(trigger))


def trigger(
    event: Annotated[
        Literal["remittance.completed", "remittance.reversed"], typer.Argument(help="What happened.")
    ],
    partner: Annotated[str, typer.Option(help="The partner that sends it.")],
    member: Annotated[
        str | None,
        typer.Option(
            help="mem_…, a phone number (+971…) or the partner's own reference; nobody whom it knows when left out.",
            show_default=False,
        ),
    ] = None,
    received: Annotated[
        str, typer.Option(help="What arrives, in major units of the programme's currency.")
    ] = "1000",
    collected: Annotated[
        str | None,
        typer.Option(
            help="What was taken for the member's products; 5 per cent of it when left out.",
            show_default=False,
        ),
    ] = None,
    currency: Annotated[
        str | None,
        typer.Option(
            help="The programme's currency; the partner's only one when left out.", show_default=False
        ),
    ] = None,
    remittance_id: Annotated[
        str | None,
        typer.Option(help="The partner's id of the remittance; a new one when left out.", show_default=False),
    ] = None,
    webhook_id: Annotated[
        str | None,
        typer.Option(help="The delivery's id; give it again to send a duplicate.", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Where Mizan serves; the `mizan serve` beside us when left out.", show_default=False
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Send a signed test webhook to a running service, and print its answer. Only in a sandbox."""
    given = session.settings()
    at = url or (running_url(given.data_dir) if given.embedded else given.public_url)
    if at is None:
        raise session.Refused("no `mizan serve` runs for this data directory: start it, or say --url")
    with session.services(given) as services:
        if services.environment is not Environment.SANDBOX:
            raise session.Refused("test events are sent in a sandbox only: this is production")
        with services.worker.begin() as tx:
            sender = partners.find(tx, partner)
            secret = newest_secret(tx, services.keyring, services.clock, sender.id)
            if event == "remittance.completed":
                data = _completed(services, tx, partner, member, received, collected, currency, remittance_id)
            else:
                if remittance_id is None:
                    raise typer.BadParameter("say which one: --remittance-id")
                data = {
                    "remittance_id": remittance_id,
                    "reversed_at": _now(),
                    "reason": "a test of mizan trigger",
                }
    delivery = webhook_id or f"msg_{new_id().hex}"
    body = json.dumps({"type": event, "timestamp": _now(), "data": data})
    status, answer = _send(f"{at}/hooks/{partner}", secret, delivery, body)
    if as_json:
        output.as_json({"status": status, "answer": answer, "webhook_id": delivery, "body": json.loads(body)})
    else:
        output.fields(
            {
                "sent": f"{event} {data['remittance_id']} as {delivery}",
                "answer": f"{status} {json.dumps(answer)}",
            }
        )
    if status != http.HTTPStatus.ACCEPTED:
        raise typer.Exit(session.FAILED)


def _completed(
    services: Services,
    tx: Any,
    partner: str,
    member: str | None,
    received: str,
    collected: str | None,
    currency: str | None,
    remittance_id: str | None,
) -> dict[str, Any]:
    rows = tx.exec_driver_sql(
        "select g.id, g.currency from products.partner_programme pp"
        " join products.programme g on g.id = pp.programme_id join products.partner p on p.id = pp.partner_id"
        " where p.slug = %s order by g.currency",
        (partner,),
    ).all()
    chosen = [row for row in rows if currency in (None, row[1])]
    if len(chosen) != 1:
        raise session.Refused(
            f"say --currency: {partner} collects {', '.join(row[1] for row in rows) or 'nothing'}"
        )
    programme_id, code = chosen[0]
    programme = services.books.programmes.versions(tx, programme_id)[-1].programme
    destination = next((country for one in programme.corridors for country in one.destinations), code[:2])
    whole = output.minor_units(received, code)
    taken = whole // 20 if collected is None else output.minor_units(collected, code)
    return {
        "remittance_id": remittance_id or f"TEST-{new_id().hex[:12]}",
        "member": _member(member),
        "sent": {"amount": 50_000, "currency": "AED"},
        "received": {"amount": whole, "currency": code},
        "fee": {"amount": 1_500, "currency": "AED"},
        "collected": {"amount": taken, "currency": code},
        "origin_country": "AE",
        "destination_country": destination,
        "completed_at": _now(),
        "quote_id": None,
    }


def _member(text: str | None) -> dict[str, str]:
    if text is None:
        return {"partner_reference": "nobody-known"}
    if text.startswith("mem_"):
        return {"id": text}
    return {"phone": text} if text.startswith("+") else {"partner_reference": text}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _send(url: str, secret: str, delivery: str, body: str) -> tuple[int, Any]:
    """Post a signed body; the status and the answer."""
    at = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": delivery,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery, at, body),
    }
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("POST", parts.path, body.encode(), headers)
        response = connection.getresponse()
        raw = response.read()
    except OSError as error:
        raise session.Refused(f"nobody answers at {url}: {error.strerror or error}") from None
    finally:
        connection.close()
    try:
        return response.status, json.loads(raw)
    except ValueError:
        return response.status, raw.decode("utf-8", "replace")
