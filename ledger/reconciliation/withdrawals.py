"""Taking back a statement that came in by mistake: of another account, by a wrong mapping, twice in different words.

Nothing is deleted. The statement stays, with who withdrew it and why; its lines take part in nothing; what overlaps it is judged again
without it, so that lines which it had first count where they stand now. The file may come again, and the statement comes in anew.
"""

from collections.abc import Collection
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.periods import closed_through
from ledger.reconciliation import bank_accounts, files, overlaps, reading
from ledger.reconciliation.engine import hold_run
from ledger.reconciliation.pairings import hold_pairing, require_remark
from ledger.reconciliation.reading import BankStatement


class NotWithdrawn(Conflict):
    """The statement has to stand: it is withdrawn already, its lines are paired, or its days are of a closed month."""

    code = "statement_not_withdrawn"


def withdraw(
    tx: Tx, statement_id: UUID, *, remark: str, by: str, clock: Clock, funds: Collection[UUID] | None = None
) -> BankStatement:
    """Withdraw a statement of one of the funds (None: of any), none of whose lines stands in a pairing. As the worker's role.

    Raises `NotFound`, `InvalidInput` without a remark, and `NotWithdrawn`.
    """
    require_remark(remark)
    found = reading.statement(tx, statement_id)
    account = bank_accounts.by_id(tx, found.bank_account_id)
    if funds is not None and account.fund_id not in funds:
        raise NotFound("There is no such statement.")
    files.take_time(tx)
    # in this order: the file, as who brings it again holds it first; who brings statements of the account; who pairs its lines
    with cursor(tx) as sql:
        sql.execute("SELECT 1 FROM ledger.statement_file WHERE id = %s FOR UPDATE", (found.file_id,))
        sql.execute("SELECT 1 FROM ledger.bank_account WHERE id = %s FOR NO KEY UPDATE", (account.id,))
    hold_run(tx, account.id)
    hold_pairing(tx, account.id, shared=False)
    with cursor(tx) as sql:
        changed = sql.execute(
            "UPDATE ledger.bank_statement SET withdrawn_at = %s, withdrawn_by = %s, withdrawn_because = %s"
            " WHERE id = %s AND withdrawn_at IS NULL",
            (clock.now(), by, remark.strip(), statement_id),
        ).rowcount
        if not changed:
            raise NotWithdrawn("The statement was withdrawn before.")
        (paired,) = sql.execute(
            "SELECT count(*) FROM ledger.statement_line l JOIN ledger.paired_line p ON p.line_id = l.id WHERE l.statement_id = %s",
            (statement_id,),
        ).fetchone() or (0,)
    if paired:
        raise NotWithdrawn(
            f"Of the statement's lines {paired} stand in pairings: take those back first, with what they did to the books."
        )
    if found.from_on <= (closed := closed_through(tx, account.fund_id)):
        raise NotWithdrawn(
            f"The statement has days of a month that is closed (through {closed}), and its close pack shows them: reopen it first."
        )
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE ledger.statement_line SET duplicate_of = id WHERE statement_id = %s", (statement_id,)
        )
    overlaps.unmark(tx, account.id, statement_id)
    files.let_in_again(tx, found.file_id)
    return reading.statement(tx, statement_id)
