"""Periods: `mizan period close|reopen|list`."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from api.approvals import books
from api.cli import acting, approval, output, session
from ledger import periods
from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import NotFound

app = typer.Typer(name="period", help="Closing the books through a day.", no_args_is_help=True)

Fund = Annotated[str, typer.Argument(help="A fund's code, as in the trial balance: ejoheza/savers.")]
Day = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], help="The last closed day, in the fund's time zone.")
]


@app.command()
@session.command
def close(
    fund: Fund,
    through: Day,
    remark: Annotated[str, typer.Option(help="Kept with the closing.")] = "",
    as_json: session.AsJson = False,
) -> None:
    """Close a fund's books through a day: what comes later is effective on the next open day."""
    _move(
        fund,
        through.date().isoformat(),
        as_json,
        lambda tx, id_, clock: periods.close_period(
            tx, id_, through.date(), actor=session.actor(), clock=clock, remark=remark
        ),
    )


@app.command()
@session.command
def reopen(
    fund: Fund,
    through: Day,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Leave a fund's books closed only through an earlier day. In production another operator approves it."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: books.request_reopening(
                tx, services, actor, fund=fund, through=through.date(), reason=reason, origin=origin
            ),
        )
    if asked.state == "requested":
        approval.tell_asked(asked, as_json)
    else:
        _tell(fund, through.date().isoformat(), as_json)


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List the funds with the day through which each is closed."""
    with session.services() as services, services.worker.begin() as tx:
        rows = tx.exec_driver_sql(
            "select code, name, time_zone, case when closed_through > '0001-01-01' then closed_through end from ledger.fund order by code"
        ).all()
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "fund": code,
                        "name": name,
                        "time_zone": zone,
                        "closed_through": closed.isoformat() if closed else None,
                    }
                    for code, name, zone, closed in rows
                ]
            }
        )
        return
    output.table(["fund", "name", "time zone", "closed through"], rows, empty="no fund: apply a programme")


def _move(code: str, closed_through: str, as_json: bool, move: Callable[[Tx, UUID, Clock], None]) -> None:
    with session.services() as services:

        def work(tx: Tx) -> str:
            found = tx.exec_driver_sql(
                "select id from ledger.fund where code = %s", (code,)
            ).scalar_one_or_none()
            if found is None:
                raise NotFound(f"there is no fund “{code}”: `mizan period list` shows them")
            move(tx, found, services.clock)
            return periods.closed_through(tx, found).isoformat()

        closed = acting.run(services, work, "period.closed", code, through=closed_through)
    _tell(code, closed, as_json)


def _tell(code: str, closed: str, as_json: bool) -> None:
    if as_json:
        output.as_json({"fund": code, "closed_through": closed})
    else:
        print(f"{code} is closed through {closed}")
