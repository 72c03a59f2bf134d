"""`mizan bench NAME`: measure, on servers of its own in a temporary directory."""

import importlib
import pkgutil
from typing import Annotated

import typer

import api.bench
from api.cli import session

ROUNDS = 3


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Try")(session.command(bench))


def names() -> list[str]:
    """The benchmarks that there are: modules of `api.bench` that can be run by this name."""
    found = sorted(module.name for module in pkgutil.iter_modules(api.bench.__path__))
    return [
        name
        for name in ("posting", "pipeline", "hooks", "reads", "api", "payouts", "reconcile")
        if name in found
    ]


def bench(
    name: Annotated[str, typer.Argument(help="posting, pipeline, hooks, reads, api, payouts or reconcile.")],
    rounds: Annotated[
        int, typer.Option(help="Rounds; the figures are their medians.", min=1, max=100)
    ] = ROUNDS,
    as_json: session.AsJson = False,
) -> None:
    """Measure something: medians over rounds with their extremes, the machine, and what it is compared with."""
    if name not in names():
        raise session.Refused(f"there is no benchmark {name}: choose one of {', '.join(names())}")
    # Here, so that the other commands start without what only measuring needs.
    from api.bench.measure import show

    show(importlib.import_module(f"api.bench.{name}").run(rounds), as_json=as_json)
