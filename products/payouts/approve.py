"""Approving payouts: the member's proof over payee, amount and fee releases them, above a limit two operators as well.

What is proven is proven by the caller (`products.members.challenges`); here it is compared with what was shown, and everything
that must still hold is looked at again: the payee, the link, the time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import MizanError, NotFound
from ledger.ids import public_id
from products.payouts import payees
from products.payouts.cancel import cancel_many
from products.payouts.changes import Change, change_many, locked_state
from products.payouts.errors import ApprovalDiffers, NameDiffers, WrongState
from products.payouts.payees import Holder, PayeeStanding
from products.remittances.context import Books


@dataclass(frozen=True, slots=True)
class Approval:
    """What a member has approved: minor units of ``currency``, to this payee, of which the fee is this.

    ``accepts_name``: it is right although the rail knows the payee by another name. ``proof`` is the challenge's id.
    """

    payout_id: UUID
    link_id: UUID
    payee_id: UUID
    amount: int
    fee: int
    currency: str
    accepts_name: bool
    proof: UUID | None


def approve(tx: Tx, books: Books, approval: Approval) -> None:
    """Approve one payout. Raises what `approve_many` answers."""
    (refused,) = approve_many(tx, books, [approval])
    if refused is not None:
        raise refused


def approve_many(tx: Tx, books: Books, approvals: Sequence[Approval]) -> list[MizanError | None]:
    """Approve payouts; for each why not, or None.

    Answers NotFound (another member's), `WrongState`, `ApprovalDiffers`, `NameDiffers`, `PayeeNotUsable`.
    """
    now = books.clock.now()
    rows = cursor(tx).execute(
        "SELECT p.id, p.link_id, p.payee_id, p.amount, p.fee, p.currency, p.state, p.expires_at, p.payee_name,"
        " p.amount > r.release_above FROM products.payout p JOIN products.rail r ON r.id = p.rail_id"
        " WHERE p.id = ANY (%s) ORDER BY p.id FOR NO KEY UPDATE OF p",
        [[one.payout_id for one in approvals]],
    )
    standing = {row[0]: _Standing(*row) for row in rows}
    payable = payees.standings(tx, [one.payee_id for one in standing.values()], now)
    holders = payees.holders(tx, books.keyring, [one.link_id for one in standing.values()])
    answers: list[MizanError | None] = []
    approved: dict[UUID, Approval] = {}
    for one in approvals:
        try:
            _judge(one, standing, payable, holders, now)
            if one.payout_id in approved:
                raise WrongState("The payout is approved already.")
            approved[one.payout_id] = one
            answers.append(None)
        except MizanError as refused:
            answers.append(refused)
    _record_proofs(tx, approved)
    change_many(
        tx,
        [
            Change(
                id_,
                "awaiting_operators" if standing[id_].above_limit else "approved",
                actor=public_id("mem", one.link_id),
            )
            for id_, one in approved.items()
        ],
        now,
    )
    return answers


def release(tx: Tx, books: Books, payout_id: UUID, *, actor: str) -> None:
    """Release a payout that two operators have to: as the second. Raises NotFound, `WrongState`."""
    _require_awaiting_operators(tx, payout_id)
    change_many(tx, [Change(payout_id, "approved", actor=actor)], books.clock.now())


def refuse_release(tx: Tx, books: Books, payout_id: UUID, *, actor: str) -> None:
    """Give up a payout that operators refuse to release. Raises NotFound, `WrongState`."""
    _require_awaiting_operators(tx, payout_id)
    cancel_many(tx, books, [(payout_id, "refused_by_operators", actor)])


def _require_awaiting_operators(tx: Tx, payout_id: UUID) -> None:
    state = locked_state(tx, payout_id)
    if state != "awaiting_operators":
        raise WrongState(f"The payout is {state}: it waits for no operator.")


@dataclass(frozen=True, slots=True)
class _Standing:
    id: UUID
    link_id: UUID
    payee_id: UUID
    amount: int
    fee: int
    currency: str
    state: str
    expires_at: datetime
    payee_name: str
    above_limit: bool | None


def _judge(
    one: Approval,
    standing: Mapping[UUID, _Standing],
    payable: Mapping[UUID, PayeeStanding],
    holders: Mapping[UUID, Holder],
    now: datetime,
) -> None:
    found = standing.get(one.payout_id)
    if found is None or found.link_id != one.link_id:
        raise NotFound("There is no such payout.")
    holder = holders[found.link_id]
    if not holder.active or holder.erased:
        raise NotFound("There is no such member.")
    if found.state != "awaiting_member" or found.expires_at <= now:
        state = "expired" if found.state == "awaiting_member" else found.state
        raise WrongState(f"The payout is {state}: it waits for no approval.")
    shown: dict[str, Any] = {
        "/payee": (one.payee_id, found.payee_id),
        "/amount": ((one.amount, one.currency), (found.amount, found.currency)),
        "/fee": (one.fee, found.fee),
    }
    for pointer, (given, asked) in shown.items():
        if given != asked:
            raise ApprovalDiffers("What was approved is not what is asked for.", pointer=pointer)
    payee = payable[found.payee_id]
    if payee.refusal is not None:
        raise payees.refused(payee)
    if found.payee_name == "differs" and not one.accepts_name:
        raise NameDiffers(
            "The rail knows this payee by another name: the approval has to say that it is right.",
            pointer="/accepts_name",
        )


def _record_proofs(tx: Tx, approved: Mapping[UUID, Approval]) -> None:
    proven = {id_: one.proof for id_, one in approved.items() if one.proof is not None}
    if proven:
        cursor(tx).execute(
            "UPDATE products.payout AS p SET proof = a.proof FROM unnest(%s::uuid[], %s::uuid[]) AS a (id, proof)"
            " WHERE p.id = a.id",
            [list(proven), list(proven.values())],
        )
