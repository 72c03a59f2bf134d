"""Which caller each route lets in, read from the routes' own guards: OpenAPI, `docs/reference/access.md`, and the test that tries it.

``python -m api.access > docs/reference/access.md`` writes the page anew; a test compares.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from api import deps
from api.auth.scopes import ROLES, SCOPES, Role, Scope
from api.v1 import ROUTERS
from api.v1.session import holder

Caller = Literal["partner", "member"] | Role

OPEN: Final[Mapping[str, str]] = {
    "issue_token": "the client proves itself in the request",
    "revoke_token": "the client proves itself in the request",
    "get_jwks": "public keys",
    "get_authorization_server": "public metadata",
    "get_seals": "public: whoever keeps a copy of the seals proves us wrong if we change the books",
    "receive_delivery": "the signature over the body proves the partner",
    "post_rail_callback": "the rail's adapter proves the callback: a signature, or keys and an unguessable path",
    "put_rail_callback": "the rail's adapter proves the callback: a signature, or keys and an unguessable path",
    "get_rail_callback": "the rail's adapter proves the callback: a signature, or keys and an unguessable path",
    "get_health": "for whoever watches over the process; says nothing of anyone",
    "get_readiness": "for whoever watches over the process; says nothing of anyone",
    "log_in": "the person proves themselves in the request",
    "begin_openid_log_in": "sends the browser to the provider, who asks the person",
    "return_from_openid": "the provider's answer proves the person, and the browser's cookie that it is the same one",
    "complete_openid_log_in": "the log-in at the provider and a code of the authenticator prove the person",
    "begin_set_up": "the one-time link proves the person",
    "complete_set_up": "the one-time link proves the person",
    "show_stop_page": "a page with a button, the same for everybody",
    "stop_change": "the secret of the notice's link proves who got the notice",
    "/set-up": "a page that is the same for everybody; what follows # in its link stays in the browser",
    "/set-up.js": "a part of the page /set-up",
    "/openapi.json": "this document of the API",
    "/docs": "the document of the API, for people",
    "/redoc": "the document of the API, for people",
    "/problems": "what errors mean",
    "/problems/{code}": "what errors mean",
}
"""Every route that takes neither token nor session, by operation id or path, and why that is right."""


HOOKS: Final = (
    ("GET /hooks/rails/{slug}/{path}", "get_rail_callback"),
    ("POST /hooks/rails/{slug}/{path}", "post_rail_callback"),
    ("PUT /hooks/rails/{slug}/{path}", "put_rail_callback"),
    ("POST /hooks/{slug}", "receive_delivery"),
)
"""The routes that the application adds beside its routers: they take raw bytes."""

_GUARDS: Final = deps.GUARDS | {holder}


class Unlisted(Exception):
    """A route has no guard, and is not in `OPEN`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A route and who is let in: by `scopes`, by any open `session`, or everybody, for the reason `open_because`."""

    method: str
    path: str
    operation: str
    scopes: tuple[str, ...]
    session: bool
    open_because: str | None

    def lets_in(self, caller: Caller, *, person: bool) -> bool:
        """Whether a caller that may have all its scopes passes; `person` is an operator rather than a client."""
        if self.open_because is not None:
            return True
        if self.session:
            return person
        return all(has(SCOPES[name], caller, person=person) for name in self.scopes)


def has(scope: Scope, caller: Caller, *, person: bool) -> bool:
    """Whether a kind of caller may have a scope."""
    if caller == "partner":
        return scope.partner
    if caller == "member":
        return scope.member
    return caller in scope.roles and (person or not (scope.person or caller == "caseworker"))


def entries(routes: Iterable[BaseRoute]) -> list[Entry]:
    """One entry for each method of each route, in order. Raises `Unlisted`."""
    return [entry for route in flat(routes) for entry in _entries(route)]


def flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from flat(included.routes)


def _entries(route: BaseRoute) -> Iterator[Entry]:
    if not isinstance(route, Route):
        raise Unlisted(f"{route} is no route that can be judged")
    guards = [] if not isinstance(route, APIRoute) else route.dependant.dependencies
    guarded = [one for one in guards if one.call in _GUARDS]
    operation = (route.operation_id if isinstance(route, APIRoute) else None) or route.path
    scopes = tuple(scope for one in guarded for scope in one.own_oauth_scopes or ())
    because = OPEN.get(operation)
    if bool(guarded) == (because is not None):
        raise Unlisted(f"{operation} is guarded or stands in api.access.OPEN with a reason: one of the two")
    for method in sorted((route.methods or set()) - {"HEAD"}):
        yield Entry(method, route.path, operation, scopes, bool(guarded) and not scopes, because)


def security(scopes: Iterable[str]) -> list[dict[str, list[str]]]:
    """The OpenAPI security of an operation that takes `scopes`: one alternative for each kind of proof that opens it."""
    taken = [SCOPES[name] for name in scopes]
    roles = frozenset[Role](ROLES).intersection(*(scope.roles for scope in taken))
    alternatives: list[dict[str, list[str]]] = []
    machines: tuple[Caller, ...] = ("partner", *ROLES)
    if any(all(has(scope, caller, person=False) for scope in taken) for caller in machines):
        alternatives.append({"oauth2": [scope.name for scope in taken]})
    if all(scope.member for scope in taken):
        alternatives.append({"member": [scope.name for scope in taken]})
    if roles:
        alternatives.append({"session": sorted(roles)})
    return alternatives


MEMBER_SCHEME: Final[dict[str, Any]] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": (
        "A member's token: a partner's client exchanges its word for the member (RFC 8693, `POST /oauth/token`). It opens "
        "the pages of this one member."
    ),
}

_HEAD: Final = """# Who may do what

Generated from the code by `python -m api.access`; change `api/auth/scopes.py` or a route's guard instead. A test walks
every route with every kind of caller and compares.

- A **partner**'s client holds the scopes of its column and sees what came through the partner.
- A **member**'s token, which a partner's client gets in exchange for its word, sees this one member at this partner.
- **Operators** are people with a session and one or more roles, each for one programme or for all. A limited role sees
  the members, remittances, funds and sponsors of its programmes. A **caseworker** speaks for an organisation, and sees
  the members that it registered and those that consented to the organisation.
- A **staff client** is a machine with roles. It has what operators of the role have, but for what takes a person (◆)
  and for what takes an organisation: no client is a caseworker.

A token without the scope of a route is refused with 403 `insufficient_scope`; things that are absent and things that are
another's are both 404.

"""

_BENEATH: Final = """
## Beneath: row-level security

Each request tells its database transaction whom it speaks for, and PostgreSQL (role `mizan_api`) shows it the rows of
that partner, member or programme and no others, whatever a query forgets to say. Nothing set shows nothing. Requests that
write remittances run as `mizan_worker`, which row-level security does not bind: their queries name the partner.

A posting is shown to whoever sees one of its two accounts, a transaction to whoever sees one of its postings, and the
partitions beneath them to nobody. Statements and balances are read by functions with their owner's rights, which ask
once whether the account may be seen (`ledger.lines_of`, `ledger.moved_since`). A receipt holds all of its transaction,
so that it proves itself: it is read with the worker's role, once the API's role has seen that the transaction moved one of
the member's accounts.

Of operators the API's role reads nothing but the session whose token it was given (`api.opened_session`).

What a request of the API's role could still read, if the code asked for it, is of nobody in particular:

- `products.programme`, its versions and the numbers of its funds: the rules of a scheme are public.
- Keys, which rest sealed or are public; the state of the books as a whole (eras, seals, the folder's watermark).
"""


def render() -> str:
    """The whole page."""
    callers: tuple[Caller, ...] = ("partner", "member", *ROLES)
    lines = [_HEAD, "## Roles\n\n| role | what for |\n|---|---|\n"]
    lines += [f"| {role} | {purpose} |\n" for role, purpose in ROLES.items()]
    lines.append(
        "\n## Scopes\n\n| scope | allows | " + " | ".join(callers) + " |\n|---|---|" + "---|" * len(callers)
    )
    for scope in SCOPES.values():
        cells = [_mark(has(scope, caller, person=True), scope) for caller in callers]
        lines.append(f"\n| `{scope.name}` | {scope.allows} | " + " | ".join(cells) + " |")
    lines.append("\n\n## Routes\n\n| route | operation | takes |\n|---|---|---|\n")
    routes = [route for router in ROUTERS for route in router.routes]
    for entry in sorted(entries(routes), key=lambda entry: (entry.path, entry.method)):
        takes = " ".join(f"`{scope}`" for scope in entry.scopes)
        takes = takes or ("a session, of any role" if entry.session else f"nothing: {entry.open_because}")
        lines.append(f"| `{entry.method} {entry.path}` | `{entry.operation}` | {takes} |\n")
    for route, operation in HOOKS:
        lines.append(f"| `{route}` | `{operation}` | nothing: {OPEN[operation]} |\n")
    return "".join([*lines, _BENEATH])


def _mark(held: bool, scope: Scope) -> str:
    return ("◆" if scope.person else "●") if held else ""


if __name__ == "__main__":
    sys.stdout.write(render())
