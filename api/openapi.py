"""The OpenAPI 3.1 document: FastAPI's, with what is true of every operation written into it once."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from api.access import MEMBER_SCHEME, security
from api.auth.scopes import SCOPES
from api.openapi_links import add_links
from api.openapi_webhooks import add_webhooks
from api.problems import MEDIA_TYPE

_DESCRIPTION: Final = """\
The back office that turns remittances into social protection: matched savings and social insurance contributions.

Money is an integer of minor units with its currency; times are RFC 3339 with a zone; ids are opaque, prefixed and sort
by time. Errors are problem documents (RFC 9457) with a stable `code`: see [/problems](/problems). Lists give a
`next_cursor`. Requests that move or promise money carry an `Idempotency-Key`.
"""

_EVERY_ANSWER: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "the request's id: yours, or one of ours", "schema": {"type": "string"}},
    "Mizan-Environment": {
        "description": "where you are",
        "schema": {"type": "string", "enum": ["sandbox", "production"]},
    },
}
_RETRY: Final[dict[str, Any]] = {
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 0}}
}
_CHALLENGE: Final[dict[str, Any]] = {
    "WWW-Authenticate": {"description": "what is missing", "schema": {"type": "string"}}
}

_KEY_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": "^[ -~]+$",
}
_EDGE: Final = {
    "400": "The request cannot be read.",
    "408": "The body took too long to arrive.",
    "413": "The body is over 256 KiB.",
    "414": "The address is too long.",
    "429": "Too many requests; wait as `Retry-After` says.",
    "431": "The headers are too large.",
    "415": "The body has a Content-Encoding.",
    "503": "Not available right now; retry after `Retry-After`.",
}
"""What any operation may answer with, before it is reached (`api.middleware`)."""


def describe(app: FastAPI, public_url: str) -> None:
    """Make `app` serve the completed document at ``/openapi.json``, and build it at most once."""
    app.description = _DESCRIPTION
    app.servers = [{"url": public_url}]
    app.openapi_tags = [
        {"name": "tokens", "description": "Who you are: OAuth 2.0 client credentials."},
        {"name": "hooks", "description": "Events that partners send."},
        {"name": "members", "description": "The registry: members, facts, mandates."},
        {"name": "enrolments", "description": "Members in products."},
        {"name": "remittances", "description": "Quotes, remittances, and their reversal."},
        {"name": "balances", "description": "What members have, and why."},
        {"name": "deliveries", "description": "What became of each received webhook."},
        {"name": "events", "description": "What you are told: endpoints, deliveries, the feed."},
        {"name": "programmes", "description": "Schemes as data."},
        {"name": "ledger", "description": "The books."},
        {
            "name": "operators",
            "description": "The persons of the back office: their sessions, roles and proofs.",
        },
        {"name": "operations", "description": "For those who run the service."},
    ]
    generated = app.openapi

    def completed() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generated())
        return app.openapi_schema

    app.openapi = completed  # type: ignore[method-assign]  # FastAPI's documented way of extending the document


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "Idempotency-Key":
                    # absent it is a 400 of its own kind, so the code takes it as optional
                    parameter["required"] = True
                    parameter["schema"] = _KEY_SCHEMA
            responses = operation["responses"]
            if "oauth2" in (operation.get("security") or [{}])[0]:
                operation["security"] = security(operation["security"][0]["oauth2"])
            for status, meaning in _EDGE.items():
                responses.setdefault(status, {"description": meaning, "content": {}})
            for status, response in responses.items():
                _complete_response(status, response)
            operation["responses"] = dict(sorted(responses.items()))
    add_links(document["paths"])
    add_webhooks(document)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemes = components.setdefault("securitySchemes", {})
    schemes["basic"] = {
        "type": "http",
        "scheme": "basic",
        "description": "The client's id and secret, for `POST /oauth/token` alone.",
    }
    schemes["member"] = MEMBER_SCHEME
    schemes["oauth2"]["flows"]["clientCredentials"]["scopes"] = {
        scope.name: scope.allows for scope in SCOPES.values()
    }
    return document


def _complete_response(status: str, response: dict[str, Any]) -> None:
    response.setdefault("headers", {}).update(_EVERY_ANSWER)
    if status in ("429", "503"):
        response["headers"].update(_RETRY)
    if status in ("401", "403"):
        response["headers"].update(_CHALLENGE)
    content = response.get("content", {})
    if int(status) < HTTPStatus.BAD_REQUEST:
        return
    # FastAPI files a model under application/json: a problem is served under its own media type
    filed = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    if filed.endswith("/ProblemDocument"):
        del content["application/json"]
    if status in _EDGE or MEDIA_TYPE in content:
        content[MEDIA_TYPE] = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    if content:
        response["content"] = content
