"""The page at `/app`, in a real browser on a phone's screen: what it shows, in which language, and what it doesn't run."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, Locator, Page, sync_playwright

import api.app_page
from api.app_page.languages import FOLDER, LANGUAGES, chosen, language
from api.app_page.partner import CREDENTIALS_FILE, Credentials, Partner
from api.embedded import EmbeddedServers
from api.safety import problems_of
from api.settings import Environment, Settings
from tests.conftest import TEMPLATE, databases_of, drop_database, settings_of
from tests.http.deployed import Deployment, deployed, until
from tests.http.served import served

CHROMIUM = "/usr/bin/chromium"
PHONE = {"width": 360, "height": 740}
NARROWEST = {"width": 320, "height": 640}
EVIL = "<script>alert(1)</script>{{ 7*7 }}"


@pytest.fixture(scope="module")
def deployment(
    servers: EmbeddedServers, worker_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A sandbox with the page and, for its partner, members and remittances: made by the page's own button."""
    name = f"app_page_{worker_number}"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    settings = settings_of(servers, databases, servers.redis_url)
    folder = tmp_path_factory.mktemp("app-page")
    with deployed(settings, app_page=True, data_dir=folder) as running:
        assert running.http.get("/app").status_code == 200
        assert not folder.joinpath(CREDENTIALS_FILE).exists(), "looking makes nothing"
        assert "Make an example" in running.http.get("/app").text
        for _ in range(2):  # pressed again, it changes nothing
            made = running.http.post("/app/example?lang=fr")
            assert (made.status_code, made.headers["location"]) == (303, "/app?lang=fr"), made.text
        yield running
    databases.close()
    drop_database(servers, name)


def credentials_of(deployment: Deployment) -> Credentials:
    """What the page proves itself with."""
    found = Credentials.load(Path(deployment.environment["MIZAN_DATA_DIR"]) / CREDENTIALS_FILE)
    assert found is not None
    return found


def token_of(deployment: Deployment) -> str:
    """The partner's own token."""
    ours = credentials_of(deployment)
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": ours.signed("JWT", {"sub": ours.client_id, "aud": deployment.url}),
    }
    token: str = deployment.http.post("/oauth/token", data=form).json()["access_token"]
    return token


@pytest.fixture(scope="module")
def partner(deployment: Deployment) -> Iterator[Partner]:
    """The partner that the page plays."""
    played = Partner(deployment.url, credentials_of(deployment))
    yield played
    played.close()


@pytest.fixture(scope="module")
def members(partner: Partner) -> dict[str, str]:
    """The example's members by their given names."""
    found = {one["given_name"]: one["id"] for one in partner.get("/v1/members")["data"]}
    assert set(found) == {"Uwase", "Sita", "Asha", "Mugisha"}
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        reason = f"there is no {CHROMIUM} (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Looking:
    """Somebody who looks at the page; whatever the browser complained about is kept."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def at(self, path: str) -> str:
        """Go there, without scrolling sideways; what the page says."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, answer.text()
        self.expect_to_fit()
        return self.text()

    def follow(self, link: Locator) -> None:
        """Go where a link leads, and be there: a click alone does not wait."""
        with self.page.expect_navigation():
            link.click()

    def text(self) -> str:
        """What can be read."""
        return re.sub(r"\s+", " ", self.page.inner_text("body"))

    def expect_to_fit(self) -> None:
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= self.page.evaluate("window.innerWidth"), f"{self.page.url} scrolls sideways"

    def attribute(self, name: str) -> str | None:
        return self.page.locator("html").get_attribute(name)


@contextmanager
def looking(
    browser: Browser, url: str, *, size: dict[str, int] = PHONE, locale: str = "en-GB", **more: Any
) -> Iterator[Looking]:
    """A phone. Whatever the console says, scripts that fail and policies that are broken are a failure."""
    context = browser.new_context(viewport=size, locale=locale, device_scale_factor=2, **more)  # type: ignore[arg-type]
    page = context.new_page()
    shown = Looking(page, url)
    page.on("console", lambda message: shown.complaints.append(message.text))
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("requestfailed", lambda request: shown.complaints.append(f"{request.url} failed"))
    page.on("dialog", lambda dialog: (shown.complaints.append("a script ran"), dialog.dismiss()))
    try:
        yield shown
        assert shown.complaints == []
    finally:
        context.close()


def picture(shown: Looking, tmp_path: Path, name: str) -> None:
    """Keep what it looks like, for people."""
    folder = Path(os.environ.get("PICTURES", tmp_path))
    shown.page.screenshot(path=folder / f"{name}.png", full_page=True)


def test_a_member_sees_what_they_have_and_walks_through_it(
    browser: Browser, deployment: Deployment, members: dict[str, str], tmp_path: Path
) -> None:
    with looking(browser, deployment.url) as shown:
        assert "Who is logged in?" in shown.at("/app")
        picture(shown, tmp_path, "members-en")
        shown.follow(shown.page.get_by_role("link", name="Uwase"))
        shown.expect_to_fit()
        text = shown.text()
        # 12 contributions of 1,500 to 2,500; the match is capped at 18,000 a year
        for said in (
            "Hello, Uwase",
            "In your name RWF41,750",
            "RWF23,750 saved by you",
            "You can withdraw RWF0",
            "Kept for you until the age of 55 · May 1, 2045 RWF23,750",
            "RWF18,000 added for you",
            "Unvested Becomes yours by the programme's rules RWF18,000",
            "Awaiting funds You are entitled to it; the sponsor has not paid in yet RWF0",
            "No cover yet. You are in no insurance",
        ):
            assert said in text, said
        picture(shown, tmp_path, "member-en")

        shown.follow(shown.page.get_by_role("link", name="Whole statement"))
        first = shown.page.locator(".lines li").all_inner_texts()
        assert len(first) == 8
        assert "+RWF1,500" in " ".join(first)
        picture(shown, tmp_path, "statement-en")
        shown.follow(shown.page.get_by_role("link", name="Older"))
        rest = shown.page.locator(".lines li").all_inner_texts()
        assert len(rest) == 4
        assert not {re.sub(r"\s+", " ", one) for one in first} & {re.sub(r"\s+", " ", one) for one in rest}
        assert shown.page.get_by_role("link", name="Older").count() == 0
        shown.page.locator("summary").click()
        shown.follow(shown.page.get_by_role("link", name="Français"))  # the place in the list is kept
        assert len(shown.page.locator(".lines li").all()) == 4
        assert "Relevé" in shown.text()

        shown.follow(shown.page.locator(".lines a").first)

        def proven() -> str | None:
            shown.page.reload()
            return shown.text() if "Prouvé" in shown.text() else None

        text = until(proven, "the transaction was sealed")
        assert "clés publiées" in text
        shown.expect_to_fit()
        picture(shown, tmp_path, "receipt-fr")

    with looking(browser, deployment.url) as shown:
        text = shown.at(f"/app/{members['Sita']}?lang=en")
        assert "NPR 3,839.40 contributed Social security contribution" in text.replace("NPR3", "NPR 3")
        assert "the agency keeps your account" in text
        picture(shown, tmp_path, "cover-en")
        text = shown.at(f"/app/{members['Asha']}?lang=en")
        assert "On its way" in text
        assert "Committed Set aside until your contribution arrives ₹150.00" in text
        assert "Nothing has moved yet." in shown.at(f"/app/{members['Mugisha']}?lang=en")


@pytest.mark.parametrize(
    ("locale", "code", "direction", "said"),
    [
        ("fr-FR", "fr", "ltr", ["Bonjour, Uwase", "41\u202f750\u00a0RWF", "1 mai 2045", "Pas encore de couverture"]),
        ("ar-EG", "ar", "rtl", ["مرحبًا، Uwase", "41,750", "1 مايو 2045", "لا تغطية بعد"]),
        ("ne-NP", "ne", "ltr", ["नमस्ते, Uwase", "41,750", "अझै सुरक्षा छैन"]),
        ("rw-RW", "rw", "ltr", ["Muraho, Uwase", "41.750", "Nta bwishingizi uragira"]),
        ("tl-PH", "fil", "ltr", ["Kumusta, Uwase", "RWF41,750", "Mayo 1, 2045", "Wala pang proteksyon"]),
    ],
)  # fmt: skip
def test_the_page_speaks_the_phones_language(
    browser: Browser,
    deployment: Deployment,
    members: dict[str, str],
    tmp_path: Path,
    locale: str,
    code: str,
    direction: str,
    said: list[str],
) -> None:
    with looking(browser, deployment.url, size=NARROWEST, locale=locale) as shown:
        shown.at(f"/app/{members['Uwase']}")
        assert (shown.attribute("lang"), shown.attribute("dir")) == (code, direction)
        html = shown.page.inner_text("body")
        assert [one for one in said if one not in html] == []
        picture(shown, tmp_path, f"member-{code}")
        back = shown.page.locator(".brand").bounding_box()
        assert back is not None
        assert (back["x"] > NARROWEST["width"] / 2) is (direction == "rtl")
        for path in ("statement", "statement?part=pending", f"receipts/{_transaction(shown)}"):
            shown.at(f"/app/{members['Uwase']}/{path}")
        picture(shown, tmp_path, f"receipt-{code}")


def _transaction(shown: Looking) -> str:
    address = shown.page.locator(".lines a").first.get_attribute("href") or ""
    return address.rpartition("/")[2].partition("?")[0]


def test_keys_are_enough_and_everything_has_a_name(
    browser: Browser, deployment: Deployment, members: dict[str, str], tmp_path: Path
) -> None:
    with looking(browser, deployment.url, color_scheme="dark") as shown:
        shown.at(f"/app/{members['Asha']}?lang=en")
        picture(shown, tmp_path, "member-dark")
        shown.page.keyboard.press("Tab")
        assert shown.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for _ in range(2):
            shown.page.keyboard.press("Tab")
        shown.page.keyboard.press("Enter")  # opens the languages
        shown.page.keyboard.press("Tab")
        shown.page.keyboard.press("Tab")
        shown.page.keyboard.press("Enter")
        shown.page.wait_for_url("**lang=fr*")
        unnamed = shown.page.evaluate(
            "[...document.querySelectorAll('a, button, summary, section[aria-labelledby], nav')].filter(e =>"
            " !(e.textContent.trim() || e.getAttribute('aria-label'))"
            " || e.getAttribute('aria-labelledby') && !document.getElementById(e.getAttribute('aria-labelledby')))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
        levels = [
            int(one)
            for one in shown.page.evaluate("[...document.querySelectorAll('h1, h2')].map(e => e.tagName[1])")
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1


def test_what_members_and_addresses_say_is_text(
    browser: Browser, deployment: Deployment, partner: Partner, members: dict[str, str]
) -> None:
    evil = partner.post(
        "/v1/members",
        {
            "programme": "ejoheza",
            "partner_reference": "evil",
            "given_name": EVIL,
            "mandate": {"text_version": "2026-1", "language": "en"},
        },
    )["id"]
    with looking(browser, deployment.url) as shown:
        assert EVIL in shown.at("/app?lang=en")
        assert f"Hello, {EVIL}" in shown.at(f"/app/{evil}?lang=en")
        assert f"مرحبًا، {EVIL}" in shown.at(f"/app/{evil}?lang=ar")
        assert shown.page.locator("script").count() == 0

    page = deployment.http
    injected = '"><script>alert(1)</script>{{7*7}}%(x)s'
    for path in ("/app", f"/app/{members['Uwase']}", f"/app/{members['Uwase']}/statement"):
        for name in ("lang", "product", "part", "cursor"):
            for value in (injected, "../../etc/passwd", "en\r\nSet-Cookie: a=b", "\x00", "{{ config }}"):
                answer = page.get(path, params={name: value})
                assert "set-cookie" not in answer.headers
                if value == "\x00":  # the edge takes no such address
                    assert answer.status_code == 400
                    continue
                assert answer.status_code in (200, 404), (path, name, value)
                assert "<script" not in answer.text
                assert "49" not in re.findall(r">\s*49\s*<", answer.text)
                assert 'lang="en"' in answer.text
    for path in (
        f"/app/{escape(EVIL)}",
        "/app/..%2Fv1%2Fmembers",
        f"/app/{members['Uwase']}%2F..%2F{members['Sita']}",
        "/app/mem_" + "0" * 26,
        f"/app/{members['Uwase']}/receipts/txn_{'0' * 26}",
        f"/app/{members['Uwase']}/receipts/..%2Fbalances",
    ):
        answer = page.get(path)
        assert answer.status_code == 404, path
        assert "<script" not in answer.text


def test_a_browser_presses_the_examples_button(deployment: Deployment, browser: Browser) -> None:
    with looking(browser, deployment.url) as shown:
        shown.at("/app")
        # the page's own form, which it shows as long as there is nobody
        shown.page.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            " '<form method=post action=\"/app/example?lang=fr\"><button id=press>+</button></form>')"
        )
        shown.page.locator("#press").click()
        shown.page.wait_for_url("**/app?lang=fr")
        assert "Uwase" in shown.text()


def test_the_example_is_made_from_our_own_page_alone_and_the_policy_is_strict(deployment: Deployment) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ):
        assert deployment.http.post("/app/example", headers=headers).status_code == 403
    policy = deployment.http.get("/app").headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "script-src 'self'" in policy
    assert deployment.http.get("/app/style.css").headers["content-type"].startswith("text/css")
    assert deployment.http.get("/app").headers["x-frame-options"] == "DENY"
    paths = deployment.http.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith("/app")]


def test_a_withdrawn_consent_ends_what_the_page_shows(
    deployment: Deployment, members: dict[str, str]
) -> None:
    path = f"/app/{members['Mugisha']}?lang=en"
    assert deployment.http.get(path).status_code == 200
    withdrawn = deployment.http.patch(
        f"/v1/members/{members['Mugisha']}/consents",
        json={"purpose": "contributions", "state": "ended"},
        headers={"Authorization": f"Bearer {token_of(deployment)}"},
    )
    assert withdrawn.status_code == 200, withdrawn.text
    gone = deployment.http.get(path)
    assert gone.status_code == 404
    assert "the consent to show it has ended" in unescape(gone.text)


def test_there_is_no_page_in_production_nor_where_nobody_asked_for_it(
    settings: Settings, databases: Any, clock: Any
) -> None:
    production = settings.model_copy(
        update={
            "environment": Environment.PRODUCTION,
            "app_page": True,
            "public_url": "https://mizan.example",
        }
    )
    assert [problem for problem in problems_of(production) if "MIZAN_APP_PAGE" in problem]
    with served(settings, databases.worker, clock) as api:
        assert api.http.get("/app").status_code == 404
        assert api.http.post("/app/example").status_code == 404


def test_without_an_answer_the_page_says_so(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from api.app_page.partner import ApiRefused

    kept = Credentials("cli_x", "kid", ec.generate_private_key(ec.SECP256R1()))
    kept.save(tmp_path / "kept.json")
    assert (tmp_path / "kept.json").stat().st_mode & 0o077 == 0
    read = Credentials.load(tmp_path / "kept.json")
    assert read is not None
    assert read.key.private_numbers() == kept.key.private_numbers()
    alone = Partner("http://127.0.0.1:9", read)
    with pytest.raises(ApiRefused) as refused:
        alone.get("/v1/members")
    alone.close()
    assert refused.value.status == 0


def test_every_text_is_translated_with_its_own_places() -> None:
    folder = Path(api.app_page.__file__).parent
    texts = {
        str(found[2])
        for found in extract_from_dir(
            folder / "templates", method_map=[("**.html", "jinja2.ext:babel_extract")]
        )
    }
    assert len(texts) > 70
    for code in LANGUAGES[1:]:
        with FOLDER.joinpath(f"{code}.po").open("rb") as file:
            catalogue = {str(one.id): str(one.string) for one in read_po(file, locale=code) if one.id}
        assert set(catalogue) == texts, code
        for text, translated in catalogue.items():
            assert translated, (code, text)
            assert set(re.findall(r"%\(\w+\)s", text)) == set(re.findall(r"%\(\w+\)s", translated)), (
                code,
                text,
            )


@pytest.mark.parametrize(
    ("code", "money", "written"),
    [
        ("en", {"amount": 38_272, "currency": "RWF"}, "RWF38,272"),
        ("en", {"amount": -150_005, "currency": "PHP"}, "-₱1,500.05"),
        ("en", {"amount": 1_234_567, "currency": "KWD"}, "KWD1,234.567"),
        ("fr", {"amount": 1_234_567, "currency": "KWD"}, "1\u202f234,567\u00a0KWD"),
        (
            "en",
            {"amount": 1_234, "currency": "IQD"},
            "IQD1.234",
        ),  # ISO 4217 says 3; the languages' own table 0
        ("rw", {"amount": 150_000, "currency": "PHP"}, "₱\u00a01.500,00"),
        ("en", {"amount": 2**53 - 1, "currency": "INR"}, "₹90,071,992,547,409.91"),
    ],
)
def test_money_is_written_with_its_currencys_decimals(code: str, money: dict[str, Any], written: str) -> None:
    assert language(code).money(money) == written


def test_what_came_in_has_the_languages_sign() -> None:
    money = {"amount": 2_000, "currency": "RWF"}
    assert language("en").money(money, signed=True) == "+RWF2,000"
    assert language("ar").money(money, signed=True) == "\u200f\u200e+2,000\u00a0RWF"
    assert language("en").money(money | {"amount": 0}, signed=True) == "RWF0"


def test_the_language_is_the_one_asked_for_or_the_best_accepted() -> None:
    for asked, accepted, expected in (
        ("ar", "fr", "ar"),
        (None, "de, ne;q=0.8, fr;q=0.9", "fr"),
        ("xx", "tl-PH", "fil"),
        (None, "ar-EG,en;q=0.5", "ar"),
        (None, None, "en"),
        ("<b>", ";;q=x,,", "en"),
        (None, "a" * 100_000, "en"),
    ):
        assert chosen(asked, accepted).code == expected


def test_the_page_reads_nothing_but_the_api() -> None:
    source = Path(api.app_page.__file__).parent
    for name in ("partner.py", "page.py", "languages.py"):
        imported = set(re.findall(r"^(?:from|import) ([\w.]+)", source.joinpath(name).read_text(), re.M))
        for module in ("products", "integrations", "ledger.database", "sqlalchemy", "psycopg"):
            assert not [one for one in imported if one.startswith(module)], (name, module)
