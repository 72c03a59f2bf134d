"""What a file's rows stand for beside balances: contributions, what partners still owe of them, and the match that they earn.

What takes all rows is judged once they are all there (`Contributions.finish`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row as Found

from ledger.database import Tx, cursor
from ledger.ids import new_id
from products import chart
from products.facts import counting
from products.members.models import MemberRecord
from products.opening import codes
from products.opening.given import Fault, Faulty, Row
from products.opening.rows import PARTS, Resolved
from products.opening.windows import OpenedWindow
from products.programmes.model import Product
from products.programmes.registry import Version
from products.remittances.context import Enrolled, Joined
from products.savings import rules
from products.savings.shares import Share

REMITTANCE_ID_CHARACTERS_MAX: Final = 128


class Contributions:
    """Of one load; ``windows`` are the match that it opens. ``effective_on`` is the day that the books are opened for."""

    def __init__(
        self,
        tx: Tx,
        versions: Sequence[Version],
        sponsors: Mapping[str, Found[Any]],
        effective_on: date,
        add: Callable[[Fault], None],
    ) -> None:
        self._tx, self._versions, self._sponsors = tx, versions, sponsors
        self._effective_on, self._add = effective_on, add
        self.windows: dict[tuple[UUID, date], OpenedWindow] = {}
        self._told: dict[tuple[UUID, UUID], tuple[int, Row]] = {}
        self._owed: dict[tuple[UUID, UUID], tuple[int, Row]] = {}
        self._remittances: dict[tuple[UUID, str], Row] = {}

    def tell(self, row: Row, fund: UUID, partner: Joined, amount: int) -> None:
        """Take what a partner owes a fund in all: what its contributions that are still owed have to come to."""
        before, first = self._told.get((fund, partner.partner_id), (0, row))
        self._told[fund, partner.partner_id] = (before + amount, first)

    def share(
        self, made: Resolved, member: MemberRecord, enrolled: Enrolled, product: Product, on: date
    ) -> None:
        """Take a part of a sponsor's share of a match, in the window of a day. Raises `Faulty`."""
        row = made.row
        found = self._window(row, member, enrolled, product, on)
        if found is None:
            raise Faulty("product", "this product has no match")
        opened, _ = found
        slug = row.text("sponsor")
        if not slug and len(opened.match.shares) == 1:
            slug = opened.match.shares[0].sponsor
        sponsor = self._sponsors.get(slug)
        if sponsor is None:
            raise Faulty(
                "sponsor",
                "say which of the match's sponsors it is"
                if not slug
                else "the programme has no such sponsor",
            )
        made.sponsor_id, made.contributed_on, made.window_start = sponsor.id, on, opened.window.start
        if made.code.name == chart.SPONSOR_COMMITTED.name:
            made.account_id = sponsor.committed_account
        share = opened.shares.get(sponsor.id) or Share()
        parts = {part: getattr(share, part) for part in PARTS.values()}
        parts[PARTS[made.code.name]] += made.amount
        opened.shares[sponsor.id] = Share(**parts)

    def contribution(
        self,
        made: Resolved,
        partner: Joined,
        member: MemberRecord,
        enrolled: Enrolled,
        product: Product,
        on: date | None,
    ) -> None:
        """Take what a row says was contributed, and what of it is still owed. Raises `Faulty`."""
        row = made.row
        pending = made.code.name == chart.CONTRIBUTIONS_PENDING.name
        owed = _yes(row, "owed") or pending
        contributed = row.amount("contributed", made.currency)
        if contributed is not None and contributed < 0:
            raise Faulty("contributed", "what was contributed is not below zero")
        if owed or made.code.name in codes.COLLECTED:
            if on is None:
                raise Faulty("contributed_on", "say on which day it was collected")
            if contributed not in (None, made.amount):
                raise Faulty(
                    "contributed", "what is still owed, or was collected for others, is contributed whole"
                )
        if on is None:
            if contributed:
                raise Faulty("contributed_on", "say on which day it was contributed")
            return
        amount = made.amount if contributed is None else contributed
        if not amount:
            return
        if not made.amount:
            raise Faulty(
                "amount",
                "what was contributed and is not there any more can't be opened: nothing stands for it",
            )
        made.contributed_on, made.contributed, made.remittance = on, amount, new_id()
        made.remittance_id = self._remittance_id(row, partner, owed)
        agreed = partner.on(on)
        if owed:
            if not agreed.owes:
                raise Faulty("owed", "a prefunded partner owes nothing")
            if agreed.settles_at_once and pending:
                raise Faulty(
                    "account",
                    "a guaranteed partner's contributions are savings at once: member_savings, owed: yes",
                )
            if not agreed.settles_at_once and made.code is chart.MEMBER_SAVINGS:
                raise Faulty(
                    "account",
                    "a net partner's contributions are pending until it has paid: member_contributions_pending",
                )
            made.against = partner.account(made.fund_id, chart.PARTNER_RECEIVABLE)
            before, first = self._owed.get((made.fund_id, partner.partner_id), (0, row))
            self._owed[made.fund_id, partner.partner_id] = (before + amount, first)
        found = (
            None if made.code.name in codes.COLLECTED else self._window(row, member, enrolled, product, on)
        )
        if found is not None:
            opened, tier = found
            made.window_start, made.tier, made.rule_version = opened.window.start, tier, opened.rule_version
            opened.contribute(tier, amount, settled=not pending)

    def finish(self) -> None:
        """Judge what takes all rows: what partners owe, and match."""
        for key in self._told.keys() | self._owed.keys():
            told, told_row = self._told.get(key, (0, None))
            owed, owed_row = self._owed.get(key, (0, None))
            at = told_row or owed_row
            if told != owed and at is not None:
                what = (
                    f"the partner owes {told} minor units here, and its contributions that are still owed come to {owed}:"
                    " each of them is a row (owed: yes, or pending)"
                )
                self._add(at.fault(Faulty("amount", what)))
        by_slug = {slug: row.id for slug, row in self._sponsors.items()}
        for window in self.windows.values():
            what_differs = window.differs(self._effective_on, by_slug)
            if what_differs is not None:
                self._add(window.row.fault(Faulty("amount", what_differs)))
        self._no_match_yet()
        self._new_remittances()

    def _new_remittances(self) -> None:
        """Remittances that are here already, under whatever name, can't be opened."""
        keys = list(self._remittances)
        rows = cursor(self._tx).execute(
            "SELECT c.partner_id, c.remittance_id FROM products.remittance_claim c"
            " JOIN unnest(%b::uuid[], %b::text[]) AS t (p, r) ON c.partner_id = t.p AND c.remittance_id = t.r"
            " JOIN products.remittance x ON x.id = c.id",
            ([key[0] for key in keys], [key[1] for key in keys]),
        )
        for partner_id, remittance_id in rows.fetchall():
            row = self._remittances[partner_id, remittance_id]
            self._add(row.fault(Faulty("remittance_id", "this remittance is here already")))

    def _no_match_yet(self) -> None:
        """Windows in which members have contributed here already can't be opened."""
        keys = list(self.windows)
        rows = cursor(self._tx).execute(
            """SELECT s.enrolment_id, s.window_start FROM products.match_state s
               JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON s.enrolment_id = t.e AND s.window_start = t.w
               WHERE s.entitled <> 0 OR EXISTS (SELECT FROM unnest(s.by_tier) AS total WHERE total <> 0)
                  OR EXISTS (SELECT FROM products.match_share h WHERE h.enrolment_id = s.enrolment_id
                             AND h.window_start = s.window_start AND h.committed + h.unvested + h.vested + h.awaiting > 0)""",
            ([key[0] for key in keys], [key[1] for key in keys]),
        )
        for enrolment_id, start in rows.fetchall():
            row = self.windows[enrolment_id, start].row
            self._add(row.fault(Faulty("member", "the member has contributed here in this window already")))

    def _window(
        self, row: Row, member: MemberRecord, enrolled: Enrolled, product: Product, on: date
    ) -> tuple[OpenedWindow, int] | None:
        """The window of a day and the tier that the rules give a contribution of that day; None without a match."""
        having = [one.programme for one in self._versions if product.code in one.programme.codes]
        if product.match is None:
            return None
        window = rules.window_of(product.match, on, enrolled.enrolled_on)
        deciding = rules.rule_version_for(having, window)
        match = deciding.product(product.code).match
        if match is None:
            return None
        facts = counting(deciding.facts, member.facts).on(on)
        tier = rules.tier_of(match, facts, on, min(enrolled.enrolled_on, on), enrolled.entry_age)
        empty = [0] * (len(match.tiers) + 1)
        opened = self.windows.setdefault(
            (enrolled.id, window.start),
            OpenedWindow(enrolled.id, match, window, deciding.validity.version, row, empty, list(empty)),
        )
        return opened, tier

    def _remittance_id(self, row: Row, partner: Joined, owed: bool) -> str | None:
        given = row.text("remittance_id")
        if not given:
            if owed:
                raise Faulty(
                    "remittance_id",
                    "say by which id the partner knows it: it is settled, or reversed, by that",
                )
            return None
        if len(given) > REMITTANCE_ID_CHARACTERS_MAX or not given.isprintable():
            raise Faulty(
                "remittance_id", f"an id has 1 to {REMITTANCE_ID_CHARACTERS_MAX} printable characters"
            )
        if (partner.partner_id, given) in self._remittances:
            raise Faulty("remittance_id", "this remittance is in the file already: one row for each")
        self._remittances[partner.partner_id, given] = row
        return given


def _yes(row: Row, column: str) -> bool:
    said = row.text(column).lower()
    if said not in ("", "yes", "no"):
        raise Faulty(column, "say yes or no")
    return said == "yes"
