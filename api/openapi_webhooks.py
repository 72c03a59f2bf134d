"""The `webhooks` of the OpenAPI document: every type of event that Mizan sends to partners' endpoints."""

from typing import Any, Final

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

from api.v1.event_shapes import SHAPES, example
from api.v1.schemas import Instant, Out
from integrations.outbound.catalogue import CATALOGUE, EventType

_HEADERS: Final = (
    (
        "webhook-id",
        "the event's id, the same in every attempt: what you have taken already, you may pass over",
        "evt_…",
    ),
    (
        "webhook-timestamp",
        "when this attempt was made, in whole Unix seconds; refuse what is 5 minutes off",
        "1772443800",
    ),
    (
        "webhook-signature",
        "Standard Webhooks 1.0: `v1,` and base64 of HMAC-SHA-256 over `id.timestamp.body`; two while a secret is rotated",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
)


def add_webhooks(document: dict[str, Any]) -> None:
    """Write the section into a document, and what it refers to into its components."""
    models = {type_: _model(type_) for type_ in CATALOGUE}
    _, definitions = models_json_schema(
        [(model, "serialization") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    document["webhooks"] = {type_: {"post": _operation(type_, model)} for type_, model in models.items()}


def model_name(type_: EventType) -> str:
    """What the schema of a type's events is called: ``RemittanceAllocatedEvent``."""
    return "".join(part.title() for part in type_.replace("_", ".").split(".")) + "Event"


def _model(type_: EventType) -> type[BaseModel]:
    return create_model(
        model_name(type_),
        __base__=Out,
        __doc__=CATALOGUE[type_].meaning,
        id=(str, ...),
        type=(str, Field(json_schema_extra={"const": type_})),
        timestamp=(Instant, ...),
        data=(SHAPES[CATALOGUE[type_].shape], ...),
    )


def _operation(type_: EventType, model: type[BaseModel]) -> dict[str, Any]:
    return {
        "tags": ["events"],
        "operationId": f"receive_{type_.replace('.', '_')}",
        "summary": type_,
        "description": CATALOGUE[type_].meaning,
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": meaning,
                "schema": {"type": "string"},
                "example": shown,
            }
            for name, meaning, shown in _HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
                    "example": example(type_),
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken: it is not sent again."},
            "410": {"description": "Nobody wants events here any more: the endpoint is disabled."},
            "default": {
                "description": "Anything else, redirects too, is tried again: after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and"
                " 24 h, and never sooner than `Retry-After` says."
            },
        },
    }
