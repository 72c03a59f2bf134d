"""How commands show what they found: JSON for programs; tables, or plain lines off a terminal, for people."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.cli.session import Refused, say
from ledger.money import Money, exponent
from products.programmes.scalars import parse_money

WIDTH_OFF_TERMINAL = 140
_ID: Final = re.compile("[a-z]{3}_[0-9a-v]{26}")


def console(*, stderr: bool = False) -> Console:
    """Where people read. Off a terminal lines are long enough for tables, so that nothing is cut."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=WIDTH_OFF_TERMINAL)
    return made


def as_json(value: object) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, default=_plain))


def fields(values: Mapping[str, object]) -> None:
    """One thing: a line for each of its fields."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        print(f"{name.replace('_', ' '):<{width}}  {_text(value)}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, empty: str = "none"
) -> None:
    """Several things of a kind. A column whose name ends in `>` is set to the right; ids stay whole, to be copied."""
    listed = list(rows)
    if not listed:
        print(empty)
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    told = [[_text(value) for value in row] for row in listed]
    for at, column in enumerate(columns):
        shown.add_column(
            column.removesuffix(">"),
            justify="right" if column.endswith(">") else "left",
            overflow="fold",
            no_wrap=any(_ID.fullmatch(row[at]) for row in told),
        )
    for row in told:
        shown.add_row(*row)
    console().print(shown)


def minor_units(text: str, currency: str) -> int:
    """An amount as people write it, in major units (``1500.00``), in minor units of its currency; at least 1.

    Raises `Refused` for thousands separators, too many decimals, zero and what is too large.
    """
    try:
        amount = parse_money(text, exponent(currency))
    except ValueError as error:
        raise Refused(f"“{text}” is no amount in {currency}: {error}") from None
    if amount < 1:
        raise Refused(f"“{text}” is no amount: it must be more than 0")
    return amount


def amount_in(minor: int, currency: str) -> str:
    """Minor units as people read them, without the currency: ``1,500.00``."""
    return str(Money(minor, currency)).rpartition(" ")[0]


def money_json(minor: int, currency: str) -> dict[str, object]:
    """The contract's money object."""
    return {"amount": minor, "currency": currency}


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator["Steps"]:
    """Progress of long work on stderr: a bar on a terminal, a line at the beginning and at the end elsewhere."""
    on = console(stderr=True)
    if not on.is_terminal:
        say(f"{title} …")
        yield Steps(None, title)
        say(f"{title}: done")
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=on,
        transient=False,
    ) as bars:
        yield Steps(bars, title, total)


class Watcher(Protocol):
    """Who is told how far long work has come."""

    def show(self, done: int, total: int | None = None, title: str | None = None) -> None:
        """So much of so much is done, of this."""
        ...


class Steps:
    """A progress bar, or nothing where nobody watches."""

    def __init__(self, bars: Progress | None, title: str, total: int | None = None) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=total) if bars is not None else None

    def show(self, done: int, total: int | None = None, title: str | None = None) -> None:
        """Show how much is done of how much, and of what."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, description=title)


def _text(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(value)


def _plain(value: Any) -> str:
    """What JSON has no word for: times, dates and ids, as text."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def counted(number: int, what: str) -> str:
    """``1 line``, ``2 lines``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
