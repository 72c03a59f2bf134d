"""The documentation says what the code does: generated pages are current, links lead somewhere, commands exist."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import integrations
import products
import tests
from api.approvals.kinds import KINDS
from api.cli.app import app
from api.cli.inbox import State as ListedState
from api.settings_reference import render as settings_page
from api.v1.deliveries import State as ShownState
from products import chart
from products.chart import Code
from products.remittances import outcomes, process

PROJECT = Path(tests.__file__).parents[1]
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_page_about_settings_is_current() -> None:
    assert text_of(DOCS / "reference" / "settings.md") == settings_page(), (
        "write it again: python -m api.settings_reference > docs/reference/settings.md"
    )


def test_the_page_about_outcomes_is_current() -> None:
    assert text_of(DOCS / "reference" / "outcomes.md") == outcomes.render(), (
        "write it again: python -m products.remittances.outcomes > docs/reference/outcomes.md"
    )


def reasons_in(source: str) -> set[str]:
    """The reason codes that a source file gives to verdicts and deliveries."""
    found = set(
        re.findall(
            r'(?:refuse\(event, |Verdict\("\w+", |reason = |reason=|return "\w+", )"([a-z_]+)"', source
        )
    )
    found |= set(re.findall(r'else "([a-z_]+)"', "".join(re.findall(r"reason = .*", source))))
    # what was collected can't be known
    return found | set(re.findall(r'return "([a-z_]+)" if by_quote', source))


def test_every_reason_that_the_code_gives_is_in_the_table_and_the_table_has_no_other() -> None:
    sources = [
        *(
            Path(process.__file__).with_name(f"{name}.py")
            for name in ("plan", "process", "reverse", "record", "monthly")
        ),
        *Path(integrations.__file__).parent.joinpath("inbox").glob("*.py"),
        PROJECT / "api" / "hooks.py",
        Path(integrations.__file__).parent / "partners" / "port.py",
    ]
    given = set().union(*(reasons_in(text_of(source)) for source in sources))
    given |= {"invalid_event"}  # the code of EventInvalid is the reason under which it is kept
    assert given == set(outcomes.REASONS)


def test_states_are_the_same_everywhere() -> None:
    standing = set(outcomes.STATES) - {"replayed"}
    assert set(get_args(outcomes.State)) == set(outcomes.STATES)
    assert set(get_args(ShownState)) == standing
    assert {state.value for state in ListedState} == standing
    assert set(get_args(process.State)) <= standing
    assert {state for reason in outcomes.REASONS.values() for state in reason.states} <= standing


def test_the_chart_of_accounts_is_the_codes_own() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d*) ?\|", text_of(DOCS / "reference" / "accounts.md"), re.M)
    codes = [value for value in vars(chart).values() if isinstance(value, Code)]
    assert {(code.name, code.kind, "" if code.floor is None else str(code.floor)) for code in codes} == set(
        rows
    )


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith(("http://", "https://", "/")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor.lower() in {one.lower() for one in anchors(target)}, f"{link}: no such heading"


def test_every_page_is_in_the_index() -> None:
    index = text_of(DOCS / "README.md")
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        assert name == "README.md" or f"({name})" in index, f"docs/README.md does not lead to {name}"


def commands_in(page: Path) -> list[str]:
    """The `mizan` commands of a page's shell blocks, continued lines joined."""
    found = []
    for _, block in re.findall(r"^( *)```(?:sh|console)\n(.*?)^\1```", text_of(page), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found += re.findall(
                r"(?:^|[|;&(]|\bdo\b)\s*(?:\$ )?(?:\w+=\S* )*(mizan [^|;&()<>]*)", line.strip()
            )
    return found


def commands_named_in(page: Path) -> list[str]:
    """The `mizan` commands that a page's text names, maybe without what they need."""
    return re.findall(r"(?<!`)`(mizan [^`]*)`(?!`)", re.sub(r"\s*\n\s*", " ", text_of(page)))


ALL_COMMANDS = [(page, line) for page in PAGES for line in commands_in(page)]


MIZAN = get_command(app)


def command_of(page: Path, line: str) -> tuple[TyperCommand | TyperGroup, list[str]]:
    """What `mizan` runs for a line, and the words that it is given."""
    words = shlex.split(line, comments=True)[1:]
    command = MIZAN
    while words and isinstance(command, TyperGroup):
        assert words[0] in command.commands, f"{page.name}: mizan has no {words[0]}"
        command = command.commands[words.pop(0)]
    assert isinstance(command, TyperCommand | TyperGroup)
    return command, words


@pytest.mark.parametrize(
    ("page", "line"), ALL_COMMANDS, ids=lambda value: value if isinstance(value, str) else value.name
)
def test_every_command_shown_exists_and_is_given_what_it_needs(page: Path, line: str) -> None:
    command, words = command_of(page, line)
    context = command.make_context("mizan", list(words), resilient_parsing=True)
    given, left, _ = command.make_parser(context).parse_args(list(words))
    assert left == []
    needed = {one.name for one in command.params if one.required}
    assert {name for name in needed if name is not None and given.get(name) in (None, ())} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_named_exists_with_its_options(page: Path) -> None:
    for line in commands_named_in(page):
        command, words = command_of(page, line)
        options = {
            one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, line


def test_pages_say_nothing_of_their_makers_machines() -> None:
    for page in PAGES:
        assert not re.search(r"/(root|work|home)/|localhost:\d|pypi\.org/simple", text_of(page)), page


def test_the_catalogue_and_the_decisions_exist_where_pages_name_files() -> None:
    for page in PAGES:
        for named in re.findall(
            r"`((?:api|products|ledger|integrations|tests)/[\w/.-]+\.(?:py|yaml|sql))`", text_of(page)
        ):
            assert (PROJECT / named).exists(), f"{page.name} names {named}"
    assert (Path(products.__file__).parent / "programmes" / "catalogue" / "haba-haba.yaml").exists()


def test_every_kind_of_request_is_on_the_page_about_two_persons() -> None:
    page = text_of(DOCS / "how-to" / "approve-with-two-persons.md")
    told = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert sorted(kind for cell in told for kind in re.findall(r"`(\w+)`", cell)) == sorted(KINDS)


OPERATIONS = {
    "money-out.md": (
        (
            "/v1/payouts", "/v1/rails", "/v1/payment-", "/v1/settlement", "/v1/sponsors", "/v1/claim-packs",
            "/v1/agencies", "/v1/remittal", "/v1/webhook-endpoints", "/v1/events", "/hooks/rails",
        ),
        ("payout", "rail", "payment-file", "settlement", "sponsor", "remittal", "endpoint"),
    ),
    "money-proven.md": (
        (
            "/v1/bank-", "/v1/pairing", "/v1/receipts", "/v1/conversions", "/v1/reconciliation", "/v1/break",
            "/v1/periods", "/v1/books", "/v1/opening", "/v1/shadow",
        ),
        ("reconcile", "period", "opening", "shadow"),
    ),
}  # fmt: skip
"""Pages that show each operation beside its command: which routes and commands are theirs."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_beside_its_command(name: str) -> None:
    own_routes, own_commands = OPERATIONS[name]
    page = text_of(DOCS / "reference" / name)
    shown_routes = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)[^`]*`", page))
    shown_commands = set(re.findall(r"`(mizan [^`]*)`", page))
    routes = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", text_of(DOCS / "reference" / "access.md"), re.M))
    commands = set(re.findall(r"^## (mizan .*)$", text_of(DOCS / "reference" / "commands.md"), re.M))
    assert (shown_routes - routes, shown_commands - commands) == (set(), set())
    assert {one for one in routes if one.split()[1].startswith(own_routes)} <= shown_routes
    assert {one for one in commands if one.split()[1] in own_commands} <= shown_commands
