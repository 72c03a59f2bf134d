"""Withdrawing a mandate while it cools off: what was collected under it and not paid in goes back to its sender.

Until a partner has paid in, it holds the money, and reversing the remittance is all that it takes: the partner is told as
of any reversal, and returns it. What was paid in is the fund's, and comes back as any payout does.
"""

from ledger.database import Tx, cursor
from products.members.models import Mandate, Member
from products.remittances.context import Books
from products.remittances.events import RemittanceReversed
from products.remittances.process import Delivery, process

REASON = "cooling_off"


def take_back(tx: Tx, books: Books, member: Member, mandate: Mandate) -> int:
    """Reverse what was contributed under a mandate that has just been withdrawn while it cooled off; answers how many.

    Needs the worker's rights. 0 for a mandate that does not cool off (any more).
    """
    until, withdrawn = mandate.cooling_off_until, mandate.withdrawn_at
    if until is None or withdrawn is None or withdrawn >= until:
        return 0
    rows = cursor(tx).execute(
        """SELECT r.remittance_id FROM products.remittance r
           WHERE r.partner_id = %s AND r.link_id = %s AND r.status = 'posted' AND r.contributed_at >= %s
             AND NOT EXISTS (SELECT 1 FROM products.contribution c
                             WHERE c.remittance = r.id AND c.settlement_id IS NOT NULL)
           ORDER BY r.remittance_id""",
        (member.partner_id, member.link_id, mandate.given_at),
    )
    events = [RemittanceReversed(remittance_id, withdrawn, REASON) for (remittance_id,) in rows.fetchall()]
    if not events:
        return 0
    verdicts = process(tx, [Delivery(None, member.partner_id, event) for event in events], books=books)
    return sum(verdict.state == "reversed" for verdict in verdicts)
