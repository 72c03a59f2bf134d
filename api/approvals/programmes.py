"""A version of a programme, which changes what members are owed: one administrator applies it, another approves."""

from typing import Final

from sqlalchemy import text

from api.approvals.service import NOWHERE, Origin, Payload, Request, Stale, file, register
from api.auth.actors import Actor
from api.bootstrap import Services
from ledger.database import Tx
from ledger.ids import public_id
from products.programmes.loader import load
from products.programmes.registry import apply

KIND: Final = "programme_version"


def request_version(
    tx: Tx, services: Services, actor: Actor | str, source: str, remark: str, *, origin: Origin = NOWHERE
) -> Request:
    """Ask for a programme file to be applied. It is applied and undone at once: what is wrong with it is said now.

    Raises `InvalidProgramme`, `ProgrammeConflict`, and Stale when the very same version is applied already.
    """
    programme = load(source)
    attempt = tx.begin_nested()
    try:
        applied = apply(tx, source, clock=services.clock)
    finally:
        attempt.rollback()
    if not applied.created:
        raise Stale(f"Version {applied.version} of {programme.slug} is applied already.")
    known = tx.execute(
        text("SELECT id FROM products.programme WHERE slug = :slug"), {"slug": programme.slug}
    ).scalar_one_or_none()
    return file(
        tx,
        services,
        actor,
        KIND,
        {
            "slug": programme.slug,
            "version": programme.validity.version,
            "follows": _newest(tx, programme.slug),
            "source": source,
        },
        remark,
        object_=f"programme:{programme.slug}",
        programme_id=known,
        origin=origin,
    )


def _newest(tx: Tx, slug: str) -> int:
    return int(
        tx.execute(
            text(
                "SELECT coalesce(max(v.version), 0) FROM products.programme_version v"
                " JOIN products.programme g ON g.id = v.programme_id WHERE g.slug = :slug"
            ),
            {"slug": slug},
        ).scalar_one()
    )


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    if _newest(tx, payload["slug"]) != payload["follows"]:
        raise Stale(f"Another version of {payload['slug']} was applied meanwhile.")
    applied = apply(tx, payload["source"], clock=services.clock)
    return {"programme": public_id("prg", applied.programme_id), "version": applied.version}


register(
    KIND,
    roles=frozenset({"administrator"}),
    execute=_execute,
    describe=lambda payload: f"Apply version {payload['version']} of {payload['slug']}.",
)
