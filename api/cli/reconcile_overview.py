"""Money at a glance: `mizan reconcile today|three-way|rails`."""

from datetime import date, datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from api.cli import output, session
from api.v1 import reconciliation_shapes as shapes
from api.v1.first_page_shapes import first_page_out, tenths
from products import chart
from products.reconciliation import first_page as daily
from products.reconciliation import rail_days, three_way
from products.reconciliation.first_page import CASH, CashNeed, FundPage, Present
from products.settlements.obligations import BUCKETS

A_DAY = ["%Y-%m-%d"]
SHOWN_MAX = 200

Programme = Annotated[str | None, typer.Option(help="One programme's alone, by slug.", show_default=False)]
Since = Annotated[
    datetime | None,
    typer.Option(
        formats=A_DAY, help=f"The first day; {three_way.DAYS_SHOWN} days when left out.", show_default=False
    ),
]
Through = Annotated[
    datetime | None,
    typer.Option(formats=A_DAY, help="The last day; today when left out.", show_default=False),
]
Currency = Annotated[str | None, typer.Option(help="In one currency alone.", show_default=False)]

_AGES = {"not_due": "not due", "1-7": "1–7", "8-30": "8–30", "31-90": "31–90", "over_90": "over 90"}
_NAMES = {
    "result": "result",
    "advanced": "advanced by guaranteed partners",
    "receivable_unexplained": "receivables beyond what partners have",
}
_THREE = {
    "announced\nnot settled": ("announced", "announced_less_settled"),
    "settled\nnot at bank": ("settled", "settled_less_bank"),
    "bank\nunmatched": ("bank", "unmatched"),
}
_STYLES = {
    "overdue": "bold red",
    "unmatched": "yellow",
    "awaiting_bank": "yellow",
    "unknown": "bold red",
    "under_way": "yellow",
    "credit": "cyan",
    "tied": "green",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands to `mizan reconcile`."""
    app.command("today")(today)
    app.command("three-way")(compare)
    app.command("rails")(rails)


@session.command
def today(
    programme: Programme = None,
    on: Annotated[
        datetime | None,
        typer.Option(
            formats=A_DAY,
            help="Today in each fund's time zone when left out; of a day that is past less is known.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show the first page: what is there, what is owed, and what needs a hand today, fund by fund."""
    with session.services() as services, services.worker.read() as tx:
        page = daily.first_page(tx, services.books, programme=programme, on=on.date() if on else None)
    if as_json:
        output.as_json(first_page_out(page).model_dump(mode="json"))
        return
    screen = _screen()
    idle = [one for one in page.funds if not one.position.lines and not one.bank_accounts]
    for one in page.funds:
        if one not in idle:
            screen.print(_fund(one))
    if idle:
        screen.print(
            f"Nothing has moved in {', '.join(f'{one.fund.code} ({one.currency})' for one in idle)}."
        )


@session.command
def compare(
    since: Since = None,
    through: Through = None,
    partner: Annotated[
        str | None, typer.Option(help="One partner's alone, by slug.", show_default=False)
    ] = None,
    programme: Programme = None,
    fund: Annotated[str | None, typer.Option(help="One fund's alone, by code.", show_default=False)] = None,
    currency: Currency = None,
    state: Annotated[
        three_way.State | None, typer.Option(help="In one state alone.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Compare what partners announced, what they settled and what the bank shows, by fund and day."""
    with session.services() as services:
        first, last = three_way.span(_day(since), _day(through), services.clock.now().date())
        asked = three_way.Asked(first, last, partner, programme, fund, currency, state)
        with services.worker.read() as tx:
            rows = three_way.rows(tx, services.clock, asked)
    sums = three_way.totals(rows)
    if as_json:
        output.as_json(
            {
                "since": first,
                "through": last,
                "data": [shapes.three_way_row(row).model_dump(mode="json") for row in rows],
                "totals": [
                    shapes.three_way_totals(of, amounts, sum(row.currency == of for row in rows)).model_dump(
                        mode="json"
                    )
                    for of, amounts in sums.items()
                ],
            }
        )
        return
    table = _table("day", "partner\nfund", *(f"{head}>" for head in _THREE), "state", "since>")
    for row in rows[:SHOWN_MAX]:
        table.add_row(
            row.on.isoformat(),
            f"{row.partner}\n{row.fund} {row.currency}",
            *_pairs(row.amounts, row.currency),
            Text(row.state.replace("_", " "), _STYLES.get(row.state, "")),
            _since(row),
        )
    table.add_section()
    for of, total in sums.items():
        table.add_row("all", of, *_pairs(total, of), "", "", style="bold")
    _print_rows(table, len(rows), first, last)


@session.command
def rails(
    since: Since = None,
    through: Through = None,
    rail: Annotated[str | None, typer.Option(help="One rail's alone, by slug.", show_default=False)] = None,
    programme: Programme = None,
    currency: Currency = None,
    state: Annotated[
        rail_days.State | None, typer.Option(help="In one state alone.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Compare what rails were asked to pay, what they confirmed and what the bank shows, by rail and day."""
    with session.services() as services:
        first, last = three_way.span(_day(since), _day(through), services.clock.now().date())
        with services.worker.read() as tx:
            days = rail_days.rows(
                tx,
                services.clock,
                first,
                last,
                rail=rail,
                programme=programme,
                currency=currency,
                state=state,
            )
    sums = rail_days.totals(days)
    if as_json:
        output.as_json(
            {
                "since": first,
                "through": last,
                "data": [shapes.rail_day(day).model_dump(mode="json") for day in days],
                "totals": [
                    shapes.rail_totals(of, amounts, sum(day.currency == of for day in days)).model_dump(
                        mode="json"
                    )
                    for of, amounts in sums.items()
                ],
            }
        )
        return
    amounts = ("asked", "unknown", "submitted", "confirmed", "back", "bank")
    table = _table("day", "rail", *(f"{name}>" for name in amounts), "state", "days>")
    for day in days[:SHOWN_MAX]:
        table.add_row(
            day.on.isoformat(),
            day.rail,
            *(output.amount_in(getattr(day, name), day.currency) for name in amounts),
            Text(day.state.replace("_", " "), _STYLES.get(day.state, "")),
            str(day.days_since),
        )
    table.add_section()
    for of, total in sums.items():
        table.add_row(
            "all", of, *(output.amount_in(total[name], of) for name in amounts), "", "", style="bold"
        )
    _print_rows(table, len(days), first, last)


def _fund(page: FundPage) -> Panel:
    """The page of one fund, as people read it."""
    parts: list[RenderableType] = [_position(page), _verdict(page)]
    parts.append(_banks(page))
    if page.present is not None:
        parts += [
            *_receivables(page, page.present),
            _hands(page, page.present),
            _tomorrow(page, page.present.need),
        ]
    else:
        parts.append(
            Text("Who owes how long, what is unknown and what leaves next is known of today alone.", "dim")
        )
    parts.append(_tied(page))
    title = f"[bold]{page.fund.code}[/bold]  {page.currency}  {page.on:%A} {page.on.day} {page.on:%B %Y}"
    return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _position(page: FundPage) -> Table:
    """Money at hand and what is owed, side by side."""
    position = page.position
    left = [
        (code, position.amount(code)) for code in CASH if position.amount(code) or code == chart.BANK.name
    ]
    right = [(one.code, one.amount) for one in position.of("liability") if one.amount]
    table = Table(box=box.SIMPLE_HEAD, expand=True, header_style="bold", padding=(0, 1))
    table.add_column("money at hand")
    table.add_column(page.currency, justify="right")
    table.add_column("owed")
    table.add_column(page.currency, justify="right")
    for place in range(max(len(left), len(right))):
        table.add_row(*_cell(left, place, page), *_cell(right, place, page))
    table.add_section()
    table.add_row("all", _amount(position.cash, page), "all", _amount(position.owed, page), style="bold")
    if position.waiting is not None:
        if position.waiting.net:
            table.add_row("", "", "less: partners still have it", _amount(-position.waiting.net, page))
        if position.waiting.credits:
            table.add_row("", "", "and: partners may leave out", _amount(position.waiting.credits, page))
        table.add_row("", "", "owed and settled", _amount(position.owed_and_settled or 0, page), style="bold")
    return table


def _cell(lines: list[tuple[str, int]], place: int, page: FundPage) -> tuple[str, str]:
    if place >= len(lines):
        return "", ""
    code, amount = lines[place]
    return code.replace("_", " "), _amount(amount, page)


def _verdict(page: FundPage) -> Text:
    """Surplus or shortfall, and why."""
    surplus = page.position.surplus
    if surplus is None:
        return Text()
    text = Text("  ")
    if surplus == 0:
        text.append("Exactly covered.", "bold green")
    else:
        what, style = ("Surplus", "bold green") if surplus > 0 else ("Shortfall", "bold red")
        text.append(f"{what} {_amount(abs(surplus), page)} {page.currency}", style)
    because = page.position.because
    if because:
        text.append(
            ": "
            + ", ".join(
                f"{_NAMES.get(name, name.replace('_', ' '))} {_amount(amount, page)}"
                for name, amount in because
            )
        )
    text.append("\n")
    return text


def _banks(page: FundPage) -> RenderableType:
    if not page.bank_accounts:
        return Text(
            f"  No bank account shows this fund's {page.currency}: `mizan reconcile account add` adds one.\n",
            "yellow",
        )
    table = _table("bank account", "books>", "last statement>", "on", "difference>", "open lines>", "oldest")
    for one in page.bank_accounts:
        difference = one.difference
        table.add_row(
            one.slug,
            _amount(one.books, page),
            "—" if one.statement is None else _amount(one.statement, page),
            "—" if one.statement_on is None else one.statement_on.isoformat(),
            Text("—" if difference is None else _amount(difference, page), "yellow" if difference else ""),
            f"{one.open_lines}"
            + (f" ({_amount(one.open_in - one.open_out, page)})" if one.open_lines else ""),
            "—" if one.open_since is None else one.open_since.isoformat(),
        )
    if not page.mirrored:
        return Group(
            table, Text(f"  No bank account mirrors this fund's bank in {page.currency}.\n", "yellow")
        )
    return table


def _receivables(page: FundPage, present: Present) -> list[RenderableType]:
    owing = [one for one in present.receivables if one.balance or one.credits or any(one.by_bucket.values())]
    if not owing:
        return []
    table = _table(
        "partners owe, by days late", *(f"{_AGES[bucket]}>" for bucket in BUCKETS), "credits>", "limit used>"
    )
    for one in owing:
        used = tenths(one.tenths_used)
        table.add_row(
            one.partner,
            *(_amount(one.by_bucket[bucket], page) for bucket in BUCKETS),
            _amount(one.credits, page),
            Text("—" if used is None else f"{used} %", "bold red" if one.warned else ""),
        )
    if len(owing) > 1:
        table.add_section()
        total = present.by_bucket
        credits_ = sum(one.credits for one in owing)
        table.add_row(
            "all",
            *(_amount(total[bucket], page) for bucket in BUCKETS),
            _amount(credits_, page),
            "",
            style="bold",
        )
    return [table]


def _hands(page: FundPage, present: Present) -> Text:
    """What nobody knows: money that came, and payouts that may have left."""
    text = Text()
    found = present.unidentified
    if found.count:
        since = "" if found.oldest is None else f", the oldest of {found.oldest}"
        text.append(f"  Unidentified cash  {_amount(found.amount, page)} in {found.count}{since}\n", "yellow")
    else:
        text.append("  Unidentified cash  none\n", "green")
    for one in present.unknown:
        text.append(
            f"  Payouts unknown    {_amount(one.amount, page)} in {one.count} at {one.rail}, the oldest of"
            f" {one.oldest:%Y-%m-%d %H:%M} UTC\n",
            "bold red",
        )
    if not present.unknown:
        text.append("  Payouts unknown    none\n", "green")
    return text


def _tomorrow(page: FundPage, need: CashNeed) -> RenderableType:
    day = f"{need.day:%a} {need.day.day} {need.day:%b}"
    table = _table(f"leaves by {day}", "queued>", "held>", "under way>", "fees>", "in all>", "from")
    for one in need.rails:
        table.add_row(
            f"{one.rail}{' (paused)' if one.paused else ''}",
            *(_amount(amount, page) for amount in (one.queued, one.held, one.under_way, one.fees, one.need)),
            "bank" if one.available is None else f"float {_amount(one.available, page)}",
        )
    due = need.remittals
    if due.made or due.sent:
        table.add_row(
            "remittals",
            _amount(due.made, page),
            "",
            _amount(due.sent, page),
            "",
            _amount(due.made + due.sent, page),
            "bank",
        )
    bank = page.position.amount(chart.BANK.name)
    text = Text(f"  Bank {_amount(bank, page)} less {_amount(need.bank_need, page)} leaves ")
    left = bank - need.bank_need
    text.append(_amount(left, page), "bold red" if left < 0 else "bold green")
    text.append(
        f" on {day}. Expected by then {_amount(need.expected, page)}, overdue {_amount(need.overdue, page)}"
    )
    if need.credits:
        text.append(f", less credits {_amount(need.credits, page)}")
    if due.to_make:
        text.append(f"; paid in for agencies and in no remittal {_amount(due.to_make, page)}")
    text.append(".\n")
    return Group(table, text) if table.row_count else text


def _tied(page: FundPage) -> Text:
    """How much of what moved is shown by statement lines, by age."""
    if not page.bank_accounts:
        return Text()
    text = Text("  Tied to the bank   ")
    if not any(one.moved for one in page.tied):
        return text.append("nothing moved in 90 days")
    for place, one in enumerate(page.tied):
        share = tenths(one.tenths)
        label = "today" if one.days == 1 else f"{one.days} days"
        style = "" if one.tenths is None else "green" if one.tenths == 1_000 else "yellow"
        text.append(f"{' · ' if place else ''}{label} ")
        text.append("—" if share is None else f"{share} %", style)
    return text


def _pairs(amounts: three_way.Amounts, currency: str) -> list[str]:
    """Three ways, and beneath each what it lacks, so that a row fits a terminal."""
    return [
        "\n".join(output.amount_in(getattr(amounts, name), currency) for name in names)
        for names in _THREE.values()
    ]


def _since(row: three_way.Row) -> str:
    late = f"\n{row.days_overdue} late" if row.days_overdue else ""
    return f"{row.days_since} d{late}"


def _table(*columns: str) -> Table:
    """A plain table; a column whose name ends in `>` is set to the right."""
    table = Table(
        box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1), collapse_padding=True, pad_edge=True
    )
    for column in columns:
        right = column.endswith(">")
        table.add_column(
            column.removesuffix(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right or column in ("day", "state"),
        )
    return table


def _print_rows(table: Table, rows: int, first: date, last: date) -> None:
    if not rows:
        print(f"nothing from {first} to {last}")
        return
    screen = _screen()
    screen.print(table)
    if rows > SHOWN_MAX:
        screen.print(f"The first {SHOWN_MAX} of {rows} rows from {first} to {last}; --json has all of them.")


def _screen() -> Console:
    return output.console()


def _amount(minor: int, page: FundPage) -> str:
    return output.amount_in(minor, page.currency)


def _day(at: datetime | None) -> date | None:
    return at.date() if at else None
