"""The keys: those that sign access tokens (`mizan key rotate`), and the master key (`status`, `rotate-master`)."""

import typer

from api import rotation
from api.auth import keys
from api.cli import acting, output, session
from products import safekeeping

app = typer.Typer(
    name="key", help="The keys that sign access tokens, and the master key.", no_args_is_help=True
)


@app.command()
@session.command
def rotate(as_json: session.AsJson = False) -> None:
    """Publish the next token signing key. It signs in an hour; tokens that older keys signed stay good until they end."""
    with session.services() as services:
        made = acting.run(
            services,
            lambda tx: keys.rotate(tx, services.keyring, services.clock.now()),
            "signing_key.rotated",
            lambda made: made.kid,
        )
    if as_json:
        output.as_json(
            {
                "kid": made.kid,
                "signs_from": made.signs_from.isoformat(),
                "replaced_verify_until": made.replaced_verify_until.isoformat(),
            }
        )
    else:
        print(
            f"{made.kid} signs from {made.signs_from:%Y-%m-%d %H:%M:%SZ};"
            f" older keys verify until {made.replaced_verify_until:%Y-%m-%d %H:%M:%SZ}"
        )


@app.command()
@session.command
def status(as_json: session.AsJson = False) -> None:
    """Show the master keys that were ever current here, by id: whether they are given, and how much needs them still."""
    with session.services() as services, services.worker.begin() as tx:
        ring = services.keyring
        needed = rotation.in_use(tx)
        known = safekeeping.known(tx, ring)
    rows = [
        {
            "id": one.id,
            "current": one.id == ring.current,
            "given": one.id in ring.ids,
            "opens": one.opens,
            "first_used_at": one.first_used_at.isoformat(),
            "needed_for": needed.get(one.id, 0),
        }
        for one in known
    ]
    if as_json:
        output.as_json({"keys": rows})
        return
    output.table(
        ["id", "current", "given", "opens", "first used at", "needed for>"],
        [tuple(row.values()) for row in rows],
    )


@app.command()
@session.command
def rotate_master(as_json: session.AsJson = False) -> None:
    """Seal everything anew under the current master key, while Mizan runs. Stop it anywhere; begun again, it goes on.

    Every process must hold both keys by then: docs/how-to/rotate-the-master-key.md. Runs as mizan_owner.
    """
    with session.services() as services, session.database(services.settings, "owner") as owner:
        ring = services.keyring
        with output.progress("sealing anew") as steps:
            done = rotation.rotate(
                owner,
                ring,
                watch=lambda step: steps.show(step.done, step.done + step.left, step.column),
            )
        services.worker.run(lambda tx: acting.note(tx, services, "master_key.rotated", ring.current))
        with owner.begin() as tx:
            left = rotation.left(tx, ring)
            retired = sorted(set(rotation.in_use(tx)) | {one.id for one in safekeeping.known(tx, ring)})
    retired.remove(ring.current)
    if as_json:
        output.as_json({"key": ring.current, "done": done, "left": left, "retired": retired})
    else:
        output.table(["what", "sealed anew>", "left>"], [(name, done[name], left[name]) for name in done])
    if any(left.values()):
        raise session.Refused(
            "something was sealed under another key meanwhile: a process is running with it as its current key;"
            " start all of them with the new one, then run this again"
        )
    if not as_json:
        print(
            f"everything is sealed under {ring.current}; no longer needed: {', '.join(retired) or 'nothing'}"
        )
