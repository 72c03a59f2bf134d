"""How breaks like this one were ended before: learned from resolutions and pairings, with the evidence, and never applied by itself.

Alike are lines in the same programme, currency and direction: of the same other side (its account, by blind index, or the party it is
known as), of the same kind and amount, or of the same kind. Items: of the same party and kind, or kind. What is nearest comes first.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.reconciliation import counterparties
from ledger.reconciliation.counterparties import Counterparty
from products.reconciliation.breaks.choices import Method, Target
from products.reconciliation.breaks.queries import Break
from products.remittances.context import Books
from products.remittances.partners import Partner

EVIDENCE_MAX: Final = 20
LOOKED_BACK_MAX: Final = 5_000
"""So many earlier resolutions and pairings are looked at, the latest."""

Likeness = Literal["counterparty", "party", "kind_and_amount", "kind"]
_NEAREST: Final[tuple[Likeness, ...]] = ("counterparty", "party", "kind_and_amount", "kind")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to choose, or which partner it is of, as ``agree`` of the earlier ones say; ``disagree`` ended otherwise, or were undone.

    ``resolutions`` and ``pairings`` are those that agree, the latest first, at most `EVIDENCE_MAX`.
    """

    likeness: Likeness
    method: Method | None
    to: Target | None
    partner: str | None
    agree: int
    disagree: int
    resolutions: tuple[UUID, ...]
    pairings: tuple[UUID, ...]


def suggestions(tx: Tx, one: Break) -> list[Suggestion]:
    """What was learned for a break, the nearest likeness first and the most agreed on first; none for what is not open."""
    if one.ended_at is not None or one.subject_kind not in ("line", "item"):
        return []
    found = _ended_alike(tx, one)
    if one.subject_kind == "line":
        found += _paired_alike(tx, one)
    return sorted(found, key=lambda each: (_NEAREST.index(each.likeness), -each.agree, each.disagree))


def learn(tx: Tx, books: Books, one: Break, partner: Partner, *, actor: str) -> Counterparty:
    """Know the account on the other side of a break's line as a partner's from now on: what a person makes of a suggestion.

    Its lines, those that are open and those to come, are then the partner's to the rules. What was entered by hand stands: raises
    `InvalidInput` then, for a partner of no such programme, and for a line that names no account. As the worker.
    """
    joined = tx.execute(
        text(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = :partner AND programme_id = :programme"
        ),
        {"partner": partner.id, "programme": one.programme_id},
    ).one_or_none()
    if joined is None:
        raise InvalidInput(f"“{partner.slug}” is no partner of the programme", pointer="/partner")
    learned = (
        counterparties.learn(tx, books.keyring, books.clock, [UUID(one.subject)], partner.slug, by=actor)
        if one.subject_kind == "line"
        else []
    )
    if not learned:
        raise InvalidInput("nothing of the break names an account on the other side", pointer="/partner")
    if learned[0].party != partner.slug:
        raise InvalidInput(
            f"the account ending {learned[0].ending} was entered as “{learned[0].party}”", pointer="/partner"
        )
    return learned[0]


_ALIKE_LINES: Final = """
    SELECT r.id, r.method, r.choice -> 'to' AS to, r.state,
           CASE WHEN l.counterparty_index = t.counterparty_index THEN 'counterparty'
                WHEN l.party = t.party THEN 'party'
                WHEN l.kind = t.kind AND l.amount = t.amount THEN 'kind_and_amount'
                WHEN l.kind = t.kind AND t.party IS NULL AND t.counterparty_index IS NULL THEN 'kind' END AS likeness
    FROM products.break_resolution r JOIN products.break b ON b.id = r.break_id AND b.subject_kind = 'line'
    JOIN ledger.statement_line l ON l.id = CAST(b.subject AS uuid)
    JOIN ledger.statement_line t ON t.id = CAST(:subject AS uuid)
    WHERE r.state IN ('done', 'undone') AND r.method IN ('book', 'write_off', 'pair', 'split') AND b.programme_id = :programme
      AND l.currency = t.currency AND sign(l.amount) = sign(t.amount) AND b.id <> :break
    ORDER BY r.id DESC LIMIT :looked_back
"""
_ALIKE_ITEMS: Final = """
    SELECT r.id, r.method, r.choice -> 'to' AS to, r.state,
           CASE WHEN i.kind = t.kind AND i.party = t.party THEN 'party'
                WHEN i.kind = t.kind AND i.amount = t.amount THEN 'kind_and_amount'
                WHEN i.kind = t.kind AND t.party IS NULL THEN 'kind' END AS likeness
    FROM products.break_resolution r JOIN products.break b ON b.id = r.break_id AND b.subject_kind = 'item'
    JOIN ledger.item i ON i.id = CAST(b.subject AS uuid)
    JOIN ledger.item t ON t.id = CAST(:subject AS uuid)
    WHERE r.state IN ('done', 'undone') AND r.method IN ('book', 'write_off', 'pair', 'split') AND b.programme_id = :programme
      AND i.currency = t.currency AND sign(i.amount) = sign(t.amount) AND b.id <> :break
    ORDER BY r.id DESC LIMIT :looked_back
"""


def _ended_alike(tx: Tx, one: Break) -> list[Suggestion]:
    rows = tx.execute(
        text(_ALIKE_LINES if one.subject_kind == "line" else _ALIKE_ITEMS),
        {
            "subject": one.subject,
            "programme": one.programme_id,
            "break": one.id,
            "looked_back": LOOKED_BACK_MAX,
        },
    ).all()
    found: list[Suggestion] = []
    for likeness in _NEAREST:
        alike = [row for row in rows if row.likeness == likeness]
        outcomes: dict[tuple[Method, Target | None], list[UUID]] = {}
        for row in alike:
            if row.state == "done" and row.method in ("book", "write_off"):
                outcomes.setdefault((row.method, _target(row.to)), []).append(row.id)
        found += [
            Suggestion(
                likeness,
                method,
                to,
                None,
                len(agreeing),
                len(alike) - len(agreeing),
                tuple(agreeing[:EVIDENCE_MAX]),
                (),
            )
            for (method, to), agreeing in outcomes.items()
        ]
    return found


def _target(stored: Any) -> Target | None:  # JSON
    return Target(stored["account"], stored["owner"], stored["fund"]) if stored else None


def _paired_alike(tx: Tx, one: Break) -> list[Suggestion]:
    """Which partner's the money was that came from the same account before; a rail's payee is no party."""
    rows = tx.execute(
        text(
            "SELECT x.party, array_agg(x.pairing ORDER BY x.pairing DESC) AS pairings FROM ("
            " SELECT DISTINCT i.party, p.pairing_id AS pairing FROM ledger.statement_line t"
            " JOIN ledger.statement_line l ON l.bank_account_id = t.bank_account_id AND l.id <> t.id"
            "      AND l.counterparty_index = t.counterparty_index AND sign(l.amount) = sign(t.amount)"
            " JOIN ledger.paired_line p ON p.line_id = l.id JOIN ledger.paired_item m ON m.pairing_id = p.pairing_id"
            " JOIN ledger.item i ON i.id = m.item_id JOIN products.partner g ON g.slug = i.party"
            " WHERE t.id = CAST(:subject AS uuid) LIMIT :looked_back) x GROUP BY 1"
        ),
        {"subject": one.subject, "looked_back": LOOKED_BACK_MAX},
    ).all()
    total = sum(len(row.pairings) for row in rows)
    return [
        Suggestion(
            "counterparty",
            None,
            None,
            row.party,
            len(row.pairings),
            total - len(row.pairings),
            (),
            tuple(row.pairings[:EVIDENCE_MAX]),
        )
        for row in rows
    ]
