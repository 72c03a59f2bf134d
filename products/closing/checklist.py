"""The check-list of a month: judged from the books and the tables, explained by people where it may be."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from psycopg.types.json import Jsonb

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products.closing import judging, partners
from products.closing.findings import (
    EXPLAINABLE,
    CheckList,
    Explanation,
    Finding,
    Item,
    ItemName,
)
from products.closing.partners import Valuing
from products.closing.period import Period

REMARK_CHARACTERS_MAX: Final = 1_000
OWNED: Final[frozenset[ItemName]] = frozenset({"quarantine"})
"""Items whose explanation says who sees to it."""


class NotExplainable(Conflict):
    """The item can't be explained away: it has to be put right."""

    code = "not_explainable"


def judge(tx: Tx, period: Period, clock: Clock, valuing: Valuing) -> CheckList:
    """Every item as it stands now, with the explanations that hold. As the worker or an auditor, who see everything."""
    items: Sequence[Callable[[], Item]] = (
        lambda: judging.statements(tx, period),
        lambda: judging.breaks(tx, period),
        lambda: judging.verified(tx, period),
        lambda: judging.sub_ledgers(tx, period),
        lambda: judging.suspense(tx, period),
        lambda: partners.quarantine(tx, period, valuing),
        lambda: partners.event_totals(tx, period),
    )
    return CheckList(
        period.programme,
        period.month,
        clock.now(),
        tuple(_explained(tx, period, item()) for item in items),
    )


def explain(
    tx: Tx,
    period: Period,
    item: ItemName,
    remark: str,
    *,
    actor: str,
    clock: Clock,
    valuing: Valuing,
    subject: str | None = None,
    owner: str | None = None,
) -> Item:
    """Say why an item's findings, or one of them, are as they are; the item as it stands then.

    The word holds for the amount and the number that were found: when they change, it is a new finding. Said again with the
    same words by the same person, nothing is written.

    Raises:
        NotExplainable: the item, or what was found, has to be put right.
        NotFound: there is no such finding, or none at all.
        InvalidInput: no remark, or no owner where one is needed.
    """
    if item not in EXPLAINABLE:
        raise NotExplainable("It can't be explained away: it has to be put right.")
    remark, owner = remark.strip(), (owner or "").strip() or None
    if not 0 < len(remark) <= REMARK_CHARACTERS_MAX:
        raise InvalidInput(f"a remark has 1 to {REMARK_CHARACTERS_MAX} characters", pointer="/remark")
    if item in OWNED and owner is None:
        raise InvalidInput("say who sees to it", pointer="/owner")
    if item not in OWNED and owner is not None:
        raise InvalidInput("an owner is said of what is quarantined; a break has its own", pointer="/owner")
    now = _of(tx, period, item, valuing)
    meant = [one for one in now.findings if subject in (None, one.subject)]
    if not meant:
        raise NotFound("There is nothing of this to explain.")
    if not any(one.explainable for one in meant):
        raise NotExplainable("It can't be explained away: it has to be put right.")
    said = Explanation(remark, actor, clock.now(), owner)
    with cursor(tx) as sql:
        sql.executemany(
            "INSERT INTO products.close_explanation (id, programme_id, month, item, subject, facts, remark, owner,"
            " explained_by, explained_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    new_id(),
                    period.programme_id,
                    period.month,
                    item,
                    one.subject,
                    Jsonb(one.facts),
                    remark,
                    owner,
                    actor,
                    said.at,
                )
                for one in meant
                if one.explainable and not _says(one.explanation, said)
            ],
        )
    return _explained(tx, period, now)


def _says(known: Explanation | None, said: Explanation) -> bool:
    return known is not None and (known.remark, known.by, known.owner) == (said.remark, said.by, said.owner)


def _of(tx: Tx, period: Period, item: ItemName, valuing: Valuing) -> Item:
    judged = {
        "breaks": lambda: judging.breaks(tx, period),
        "suspense": lambda: judging.suspense(tx, period),
        "quarantine": lambda: partners.quarantine(tx, period, valuing),
        "event_totals": lambda: partners.event_totals(tx, period),
    }[item]()
    return _explained(tx, period, judged)


def _explained(tx: Tx, period: Period, item: Item) -> Item:
    """The item, each finding with the last word about it, if what was found is what the word was about."""
    if not item.explainable or not item.findings:
        return item
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT DISTINCT ON (subject) subject, facts, remark, explained_by, explained_at, owner"
            " FROM products.close_explanation WHERE programme_id = %s AND month = %s AND item = %s"
            " AND subject = ANY (%s) ORDER BY subject, id DESC",
            (period.programme_id, period.month, item.name, [one.subject for one in item.findings]),
        ).fetchall()
    known = {subject: (facts, Explanation(*said)) for subject, facts, *said in rows}

    def told(one: Finding) -> Finding:
        facts, said = known.get(one.subject, (None, None))
        holds = one.explainable and said is not None and facts == one.facts
        return replace(one, explanation=said if holds else None)

    return replace(item, findings=tuple(told(one) for one in item.findings))
