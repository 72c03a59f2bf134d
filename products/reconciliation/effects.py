"""What pairing does to the books, and taking that back: payments confirmed, settlements recorded, differences charged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from ledger.reconciliation import pairings
from ledger.reconciliation.pairings import AlreadyPaired, Proposal
from products.payouts import confirmation
from products.reconciliation import erased, postings, sources
from products.reconciliation.booked import items_of
from products.reconciliation.postings import Line, Mirrored
from products.remittances import partners
from products.remittances.context import Books
from products.settlements.pair import record_settlement
from products.settlements.returns import return_settlement
from products.settlements.settlement import Landing

Kind = Literal["payout", "settlement", "charge", "receipt", "conversion", "booked"]

TAKEN_BACK = "taken_back"
"""The rule of a pairing of the bank's postings with those that take them back."""


class Outdated(Conflict):
    """What a proposal was made of has changed since: the next run makes another."""

    code = "proposal_outdated"


class TakenBack(Conflict):
    """A person took this line back from just this: no rule pairs the two again."""

    code = "pairing_taken_back"


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a pairing did: to a payout, a settlement or a receipt, by a transaction."""

    kind: Kind
    subject: UUID | None
    transaction: UUID


@dataclass(frozen=True, slots=True)
class _Item:
    id: UUID
    source: str
    amount: int


def confirm(
    tx: Tx, books: Books, proposal: Proposal, *, made_by: str = "reconcile", run_id: UUID | None = None
) -> UUID:
    """Post what a proposal means, and pair its lines with the resulting bank postings; the pairing's id.

    All of it in `tx`: nothing of it stands alone. Raises Conflict `proposal_outdated` where what it was made of has changed,
    `already_paired` where somebody else was first, `pairing_taken_back` where somebody took just this back.
    """
    sources.lock_expected(tx)
    at = postings.mirrored(tx, proposal.bank_account_id)
    lines = postings.lines(tx, proposal.lines)
    _require_open(tx, lines)
    _require_not_taken_back(tx, proposal)
    items = _items(tx, books, proposal)
    total = sum(line.amount for line in lines)
    if total - proposal.difference != sum(one.amount for one in items):
        raise Outdated("What is expected has changed since it was proposed.")
    by_source: defaultdict[str, list[_Item]] = defaultdict(list)
    for one in items:
        by_source[one.source].append(one)
    effects = _pay(tx, books, by_source["payout"], lines[-1].booked_on, made_by)
    surplus = max(proposal.difference, 0)
    settled = _settle(tx, books, at, by_source["settlement"], lines, surplus)
    if settled and len(settled) == 1:
        surplus = 0  # it stays with the partner's own money
    effects += settled
    if proposal.difference < 0:
        effects.append(Effect("charge", None, postings.charge(tx, books, at, lines[0], -proposal.difference)))
    if surplus:
        effects.append(Effect("receipt", *postings.receive(tx, books, at, lines[0], surplus, by=made_by)))
    told: dict[str, Any] = {"proposed": sorted(str(one.id) for one in items)}
    if proposal.difference:
        told["difference"] = proposal.difference
    return pair(
        tx,
        books,
        at,
        lines,
        effects,
        rule=proposal.rule,
        evidence={**proposal.evidence, **told},
        made_by=made_by,
        run_id=run_id,
        booked=[one.id for one in by_source["booked"]],
        expected=[one.id for one in items if one.source != "booked"],
    )


def pair(
    tx: Tx,
    books: Books,
    at: Mirrored,
    lines: Sequence[Line],
    effects: Sequence[Effect],
    *,
    rule: str,
    evidence: Mapping[str, Any],
    made_by: str,
    run_id: UUID | None = None,
    booked: Sequence[UUID] = (),
    expected: Sequence[UUID] = (),
) -> UUID:
    """Pair lines with what effects posted on their bank account, and with items that stood there before; write the effects down."""
    posted = items_of(tx, [one.transaction for one in effects], at.id)
    pairing = pairings.make(
        tx,
        at.id,
        [line.id for line in lines],
        [*booked, *(id_ for id_, _ in posted)],
        rule=rule,
        evidence=evidence,
        made_by=made_by,
        clock=books.clock,
        run_id=run_id,
    )
    cur = cursor(tx)
    cur.execute(
        "INSERT INTO products.pairing_effect (id, pairing_id, kind, subject, transaction_id)"
        " SELECT n.id, %s, n.kind, n.subject, n.transaction_id"
        " FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::uuid[]) AS n (id, kind, subject, transaction_id)",
        [
            pairing,
            [new_id() for _ in effects],
            [one.kind for one in effects],
            [one.subject for one in effects],
            [one.transaction for one in effects],
        ],
    )
    cur.execute(
        "UPDATE ledger.item SET closed_at = %s WHERE id = ANY (%s) AND closed_at IS NULL",
        [books.clock.now(), list(expected)],
    )
    erased.forget_since(tx, pairing)
    return pairing


def undo(tx: Tx, books: Books, pairing_id: UUID, *, remark: str, actor: str) -> None:
    """Take a pairing back, whatever it did: whoever takes a pairing back calls this, never `pairings.undo` alone.

    What the pairing posted is reversed, by transactions linked to it: a settlement is returned, a payment is on its way again, a
    charge or a receipt taken back. A conversion's two pairings are taken back together. Raises NotFound, and Conflict where what
    followed can't be taken back.
    """
    pairings.undo(tx, pairing_id, remark=remark, actor=actor, clock=books.clock)
    cur = cursor(tx)
    (account,) = cur.execute(
        "SELECT bank_account_id FROM ledger.pairing WHERE id = %s", [pairing_id]
    ).fetchone() or (None,)
    if account is None:
        raise NotFound("There is no such pairing.")
    at = postings.mirrored(tx, account)
    rows = cur.execute(
        "UPDATE products.pairing_effect SET undone_at = %s WHERE pairing_id = %s AND undone_at IS NULL"
        " RETURNING kind, subject, transaction_id",
        [books.clock.now(), pairing_id],
    ).fetchall()
    for kind, subject, transaction in rows:
        _undo(tx, books, at, Effect(kind, subject, transaction), pairing_id, remark=remark, actor=actor)
    balance(tx, books, pairing_id)


def balance(tx: Tx, books: Books, pairing_id: UUID | None = None) -> int:
    """Pair the bank's postings of undone effects with those that took them back, once these are all there; how many.

    The bank will never show either. A long settlement is returned part by part: it waits for the last.
    """
    cur = cursor(tx)
    rows = cur.execute(
        "SELECT e.id, e.kind, e.subject, e.transaction_id, p.bank_account_id, p.undone_by FROM products.pairing_effect e"
        " JOIN ledger.pairing p ON p.id = e.pairing_id WHERE e.undone_at IS NOT NULL AND e.balanced_by IS NULL"
        " AND (%(pairing)s::uuid IS NULL OR e.pairing_id = %(pairing)s) ORDER BY e.id LIMIT 1000 FOR NO KEY UPDATE OF e",
        {"pairing": pairing_id},
    ).fetchall()
    balanced = 0
    for id_, kind, subject, transaction, account, by in rows:
        transactions = _both_ways(tx, Effect(kind, subject, transaction))
        items = items_of(tx, transactions, account)
        if len(items) < 2 or sum(amount for _, amount in items) != 0:
            continue
        made = pairings.make(
            tx,
            account,
            [],
            [item for item, _ in items],
            rule=TAKEN_BACK,
            evidence={"taken_back": str(transaction)},
            made_by=by,
            clock=books.clock,
        )
        cur.execute("UPDATE products.pairing_effect SET balanced_by = %s WHERE id = %s", [made, id_])
        balanced += 1
    return balanced


def _require_open(tx: Tx, lines: Sequence[Line]) -> None:
    taken = cursor(tx).execute(
        "SELECT 1 FROM ledger.paired_line WHERE line_id = ANY (%s) LIMIT 1", [[line.id for line in lines]]
    )
    if taken.fetchone() is not None:
        raise AlreadyPaired("the line is paired already")


def _require_not_taken_back(tx: Tx, proposal: Proposal) -> None:
    """A rule never makes again what a person took back, nor gives a partner a line that was taken from it; a person may."""
    if proposal.rule == pairings.BY_HAND:
        return
    found = cursor(tx).execute(
        """
        SELECT 1 FROM ledger.pairing p WHERE p.bank_account_id = %(account)s AND p.undone_at IS NOT NULL AND (
            p.lines = %(lines)s AND p.evidence -> 'proposed' = to_jsonb(%(items)s::text[])
            OR p.lines && %(lines)s AND EXISTS (
                SELECT FROM products.pairing_effect e LEFT JOIN products.receipt r ON r.id = e.subject
                JOIN products.settlement s ON s.id = coalesce(r.settlement_id, e.subject)
                JOIN products.expected_settlement x ON x.partner_id = s.partner_id
                WHERE e.pairing_id = p.id AND x.item_id = ANY (%(items)s::uuid[]))
        ) LIMIT 1
        """,
        {
            "account": proposal.bank_account_id,
            "lines": sorted(proposal.lines),
            "items": sorted(str(one) for one in proposal.items),
        },
    )
    if found.fetchone() is not None:
        raise TakenBack("Somebody took just this pairing back.")


def _items(tx: Tx, books: Books, proposal: Proposal) -> list[_Item]:
    """The proposal's items as they stand now. Raises `Outdated` where one is gone."""
    cur = cursor(tx)
    for (partner,) in cur.execute(
        "SELECT DISTINCT partner_id FROM products.expected_settlement WHERE item_id = ANY (%s) ORDER BY 1",
        [list(proposal.items)],
    ).fetchall():
        # nobody collects for, or settles, or takes back of this partner between here and the posting
        cur.execute(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = %s ORDER BY programme_id FOR NO KEY UPDATE",
            [partner],
        )
        sources.refresh_settlements(tx, books.clock, partner)
    rows = cur.execute(
        "SELECT id, source, amount FROM ledger.item WHERE id = ANY (%s) AND bank_account_id = %s AND closed_at IS NULL"
        " ORDER BY id",
        [list(proposal.items), proposal.bank_account_id],
    ).fetchall()
    if len(rows) != len(set(proposal.items)):
        raise Outdated("What is expected has changed since it was proposed.")
    return [_Item(*row) for row in rows]


def _pay(tx: Tx, books: Books, items: Sequence[_Item], on: date, actor: str) -> list[Effect]:
    """Payments are paid: their ids are those of their items."""
    if not items:
        return []
    rows = cursor(tx).execute(
        "SELECT id, rail_id, payout_id FROM products.payout_attempt WHERE id = ANY (%s) ORDER BY payout_id",
        [[one.id for one in items]],
    )
    amounts = {one.id: -one.amount for one in items}
    by_rail: defaultdict[UUID, list[tuple[UUID, UUID]]] = defaultdict(list)
    for attempt, rail, payout in rows:
        by_rail[rail].append((attempt, payout))
    effects = []
    for rail in sorted(by_rail):
        paid = [(attempt, amounts[attempt]) for attempt, _ in by_rail[rail]]
        told, transactions = confirmation.confirm(tx, books, rail, paid, on=on, actor=actor)
        if not transactions:
            outcomes = sorted({one.problem or one.outcome for one in told})
            raise Outdated(f"A payment can't be confirmed: {', '.join(outcomes)}.")
        effects += [
            Effect("payout", payout, transaction)
            for (_, payout), transaction in zip(by_rail[rail], transactions, strict=True)
        ]
    return effects


def _settle(
    tx: Tx, books: Books, at: Mirrored, items: Sequence[_Item], lines: Sequence[Line], surplus: int
) -> list[Effect]:
    """Partners have paid what they owe of some days: one settlement of each partner. A surplus is the only one's."""
    if not items:
        return []
    amounts = {one.id: one.amount for one in items}
    rows = cursor(tx).execute(
        "SELECT e.item_id, p.slug, e.programme_id, e.day FROM products.expected_settlement e"
        " JOIN products.partner p ON p.id = e.partner_id WHERE e.item_id = ANY (%s) ORDER BY p.slug, e.day",
        [list(amounts)],
    )
    owed: defaultdict[tuple[str, UUID], list[tuple[UUID, date]]] = defaultdict(list)
    for item, slug, programme, day in rows:
        owed[slug, programme].append((item, day))
    first, times = lines[0], postings.times_undone(tx, lines[0])
    reference = first.public_id if not times else f"{first.public_id}:{times + 1}"
    effects = []
    for (slug, programme), days in sorted(owed.items()):
        funds = [
            fund for fund, home in sources.homes(tx, [programme]).items() if home.bank_account_id == at.id
        ]
        done = record_settlement(
            tx,
            books,
            partners.find(tx, slug),
            currency=at.currency,
            amount=sum(amounts[item] for item, _ in days) + (surplus if len(owed) == 1 else 0),
            through=max(day for _, day in days),
            reference=reference,
            days=[day for _, day in days],
            funds=funds,
            landing=Landing(at.fund_id, lines[-1].booked_on),
        )
        if done.replayed:
            raise AlreadyPaired("the line is paired already")
        effects.append(Effect("settlement", done.id, _reference(tx, f"settlement:{done.id}:cash")))
    return effects


def _undo(
    tx: Tx, books: Books, at: Mirrored, effect: Effect, pairing_id: UUID, *, remark: str, actor: str
) -> None:
    match effect.kind, effect.subject:
        case "payout", UUID() as payout:
            confirmation.take_back(tx, books, payout, actor=actor)
        case "settlement", UUID() as settlement:
            return_settlement(tx, books, settlement, reason=remark)
        case "receipt", UUID() as receipt:
            _undo_receipt(tx, books, at, receipt, effect.transaction, remark=remark)
        case "conversion" | "booked", _:
            postings.take_back(tx, books, at, effect.transaction, remark=remark)
            others = cursor(tx).execute(
                "UPDATE products.pairing_effect SET undone_at = %s WHERE transaction_id = %s AND pairing_id <> %s"
                " AND undone_at IS NULL RETURNING pairing_id",
                [books.clock.now(), effect.transaction, pairing_id],
            )
            for (other,) in others.fetchall():
                pairings.undo(tx, other, remark=remark, actor=actor, clock=books.clock)
                balance(tx, books, other)
        case _:
            postings.take_back(tx, books, at, effect.transaction, remark=remark)


def _undo_receipt(
    tx: Tx, books: Books, at: Mirrored, receipt: UUID, transaction: UUID, *, remark: str
) -> None:
    """A receipt is taken back, or the settlement that it turned out to be."""
    cur = cursor(tx)
    (settlement,) = cur.execute(
        "SELECT settlement_id FROM products.receipt WHERE id = %s FOR NO KEY UPDATE", [receipt]
    ).fetchone() or (None,)
    if settlement is None:
        postings.take_back(tx, books, at, transaction, remark=remark)
    else:
        return_settlement(tx, books, settlement, reason=remark)
    cur.execute(
        "UPDATE products.receipt SET state = 'taken_back', ended_at = %s WHERE id = %s",
        [books.clock.now(), receipt],
    )


def _both_ways(tx: Tx, effect: Effect) -> list[UUID]:
    """The transactions of an effect and those that took it back."""
    settlement = effect.subject if effect.kind == "settlement" else None
    cur = cursor(tx)
    if effect.kind == "receipt":
        (settlement,) = cur.execute(
            "SELECT settlement_id FROM products.receipt WHERE id = %s", [effect.subject]
        ).fetchone() or (None,)
    rows = cur.execute(
        "SELECT transaction_id FROM ledger.reference WHERE reference = %(reversal)s"
        " OR reference >= %(first)s AND reference < %(last)s",
        {
            "reversal": f"reversal:{effect.transaction}",
            "first": f"settlement:{settlement}:" if settlement else "",
            "last": f"settlement:{settlement};" if settlement else "",
        },
    )
    return [effect.transaction, *(row[0] for row in rows)]


def _reference(tx: Tx, reference: str) -> UUID:
    row = (
        cursor(tx)
        .execute("SELECT transaction_id FROM ledger.reference WHERE reference = %s", [reference])
        .fetchone()
    )
    if row is None:
        raise LookupError(f"{reference} was posted, and is not in the books")
    transaction: UUID = row[0]
    return transaction
