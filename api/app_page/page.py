"""The page's routes: what the API answered, rendered on the server. No script, and nothing but our own style sheet."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from api.app_page import example
from api.app_page.languages import LANGUAGES, Language, chosen, language
from api.app_page.partner import CREDENTIALS_FILE, ApiRefused, Credentials, Partner
from api.bootstrap import Services
from api.security_headers import CONTENT_SECURITY_POLICY, PAGE_POLICY
from ledger.receipts import InvalidReceipt, Receipt, verify_receipt

FOLDER: Final = Path(__file__).parent
PARTS: Final = ("settled", "pending", "match_unvested", "match_vested", "unapplied")
LINES: Final = "8"
RECENT: Final = "3"
_MEMBER: Final = re.compile(r"mem_[0-9a-v]{26}")
_TRANSACTION: Final = re.compile(r"txn_[0-9a-v]{26}")

Handler = Callable[["Page", Request], Response]


def routes(services: Services) -> list[Route]:
    """The routes of `/app`, for the application that the settings ask for them."""
    page = Page(services)
    shown: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/app", Page.members),
        ("GET", "/app/style.css", Page.style),
        ("POST", "/app/example", Page.make_example),
        ("GET", "/app/{member}", Page.member),
        ("GET", "/app/{member}/statement", Page.statement),
        ("GET", "/app/{member}/receipts/{transaction}", Page.receipt),
    )
    return [
        Route(path, partial(_guarded(handler), page), methods=[method], include_in_schema=False)
        for method, path, handler in shown
    ]


def _guarded(handler: Handler) -> Handler:
    """A refusal of the API is a page, too: what is not for this member looks as if it were not there."""

    @wraps(handler)
    def answer(page: "Page", request: Request) -> Response:
        try:
            return handler(page, request)
        except ApiRefused as refused:
            ours = HTTPStatus.BAD_REQUEST <= refused.status < HTTPStatus.TOO_MANY_REQUESTS
            status = HTTPStatus.NOT_FOUND if ours else HTTPStatus.SERVICE_UNAVAILABLE
            return page.rendered(request, "refused.html", status, absent=ours)

    return answer


class Page:
    """What the page holds on to: the partner that it plays, once there is one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credentials = services.settings.data_dir / CREDENTIALS_FILE
        self._url = services.settings.public_url
        self._partner: Partner | None = None

    def members(self, request: Request) -> Response:
        """Who could be logged in; a real app knows."""
        partner = self._known()
        found = partner.get("/v1/members", limit="50")["data"] if partner is not None else []
        return self.rendered(request, "members.html", members=found)

    def make_example(self, request: Request) -> Response:
        """Make the example, for whoever pressed the button on our own page."""
        if not _from_our_page(request):
            return self.rendered(request, "refused.html", HTTPStatus.FORBIDDEN, absent=True)
        example.prepare(self._services, self._credentials)
        example.fill(self._partner_played())
        code = chosen(request.query_params.get("lang"), request.headers.get("accept-language")).code
        return RedirectResponse(f"/app?lang={code}", HTTPStatus.SEE_OTHER)

    def member(self, request: Request) -> Response:
        """What the member has."""
        member, get = self._member(request)
        person = get(f"/v1/members/{member}")
        programme = get(f"/v1/programmes/{person['programme']}")
        balances = get(f"/v1/members/{member}/balances")
        enrolments = get(f"/v1/members/{member}/enrolments")["data"]
        products = {one["code"]: one for one in programme["products"]}
        covering = {code for code, one in products.items() if _is_cover(one)}
        held = [one for one in balances["products"] if one["product"] not in covering]
        recent: Sequence[Any] = ()
        if held:
            recent = get(f"/v1/members/{member}/statement", product=held[0]["product"], limit=RECENT)["data"]
        return self.rendered(
            request,
            "member.html",
            person=person,
            programme=programme,
            products=products,
            balances=balances,
            savings=held,
            cover=[one for one in balances["products"] if one["product"] in covering],
            since={one["product"]: one["enrolled_on"] for one in enrolments if one["ended_at"] is None},
            recent=recent,
        )

    def statement(self, request: Request) -> Response:
        """What moved, page by page."""
        member, get = self._member(request)
        part = request.query_params.get("part", PARTS[0])
        asked = {
            name: request.query_params[name] for name in ("product", "cursor") if name in request.query_params
        }
        page = get(
            f"/v1/members/{member}/statement",
            part=part if part in PARTS else PARTS[0],
            limit=LINES,
            **asked,
        )
        return self.rendered(
            request,
            "statement.html",
            member=member,
            rows=page["data"],
            older=page["next_cursor"],
            part=part,
            parts=PARTS,
            product=asked.get("product"),
            first="cursor" not in asked,
        )

    def receipt(self, request: Request) -> Response:
        """One transaction, and whether the published keys prove it."""
        member, get = self._member(request)
        transaction = request.path_params["transaction"]
        if not _TRANSACTION.fullmatch(transaction):
            raise ApiRefused(HTTPStatus.NOT_FOUND, "not_found")
        receipt = get(f"/v1/members/{member}/receipts/{transaction}")
        return self.rendered(
            request,
            "receipt.html",
            member=member,
            transaction=transaction,
            receipt=receipt,
            state=_state(receipt, self._partner_played()),
        )

    def style(self, _request: Request) -> Response:
        """The style sheet."""
        return Response(FOLDER.joinpath("static", "app.css").read_bytes(), media_type="text/css")

    def rendered(
        self, request: Request, template: str, status: int = HTTPStatus.OK, **context: object
    ) -> Response:
        """A page in the language that was asked for."""
        shown = chosen(request.query_params.get("lang"), request.headers.get("accept-language"))
        kept = {
            name: value
            for name, value in request.query_params.items()
            if name in ("product", "part", "cursor")
        }
        text = (
            _environment(shown.code)
            .get_template(template)
            .render(
                language=shown,
                languages=[
                    (one, f"{request.url.path}?{urlencode(kept | {'lang': one.code})}")
                    for one in map(language, LANGUAGES)
                ],
                link=partial(_link, shown),
                **context,
            )
        )
        return HTMLResponse(
            text,
            status,
            {
                CONTENT_SECURITY_POLICY: PAGE_POLICY,
                "Content-Language": shown.code,
                "Vary": "Accept-Language",
            },
        )

    def _member(self, request: Request) -> tuple[str, Callable[..., Any]]:
        """The member of a path, and how to read with that member's token."""
        member = request.path_params["member"]
        if not _MEMBER.fullmatch(member):
            raise ApiRefused(HTTPStatus.NOT_FOUND, "not_found")
        return member, partial(self._partner_played().get, member=member)

    def _partner_played(self) -> Partner:
        partner = self._known()
        if partner is None:
            raise ApiRefused(HTTPStatus.NOT_FOUND, "not_found")
        return partner

    def _known(self) -> Partner | None:
        """The partner of the file; another process may have made it meanwhile."""
        if self._partner is None:
            credentials = Credentials.load(self._credentials)
            if credentials is not None:
                self._partner = Partner(self._url, credentials)
        return self._partner


def _is_cover(product: Mapping[str, Any]) -> bool:
    return product["kind"] in ("insurance", "welfare") or product["custody"] == "passed_through"


def _state(receipt: Mapping[str, Any], partner: Partner) -> str:
    """`pending`, `proven` or `refused`: judged here, as by whoever holds the receipt and the keys."""
    if receipt["proof"] is None:
        return "pending"
    try:
        verify_receipt(Receipt.from_json(receipt), partner.seal_keys())
    except InvalidReceipt:
        return "refused"
    return "proven"


def _link(shown: Language, path: str, **params: str | None) -> str:
    given = {name: value for name, value in params.items() if value is not None}
    return f"{path}?{urlencode(given | {'lang': shown.code})}"


@cache
def _environment(code: str) -> Environment:
    """Templates in a language; whatever goes into them is text, never markup."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = language(code).texts
    made.install_gettext_callables(texts.gettext, texts.ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension's
    return made


def _from_our_page(request: Request) -> bool:
    """Whether a browser says that it sends a form of ours; what says nothing is no browser."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:  # our pages send no referrer, and browsers then say `Origin: null`
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
