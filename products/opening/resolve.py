"""A file's rows, resolved: whose account each is, which contribution it stands for, and every fault there is.

Rows are resolved in sets (members by the thousand). Nothing is posted; accounts that a fund does not have yet are opened.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import open_accounts
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput
from ledger.ids import new_id
from ledger.money import exponent
from products import chart
from products.chart import ADMINISTRATOR, MIGRATION_CONTROL, SAVERS, Code
from products.facts import counting
from products.members.batch import load_members
from products.members.models import MemberRecord
from products.opening import codes
from products.opening.given import Fault, Faulty, Row
from products.opening.windows import OpenedWindow
from products.programmes.model import Product
from products.programmes.registry import Version
from products.remittances.context import (
    Books,
    Context,
    Enrolled,
    Joined,
    load_context,
    load_enrolments,
    version_on,
)
from products.remittances.events import MemberKey
from products.savings import rules
from products.savings.shares import Share
from products.settlements.bearers import administrator

COLUMNS: Final = frozenset(
    (
        "account", "amount", "currency", "fund", "partner", "member", "product", "sponsor", "contributed_on", "contributed",
        "owed", "remittance_id",
    )
)  # fmt: skip
REQUIRED: Final = frozenset(("account", "amount"))
TOGETHER: Final = 2_000
"""Rows that are resolved together."""
OF_ONE_MAX: Final = 1_000
"""Rows of one member: they are posted in one database transaction."""
REMITTANCE_ID_CHARACTERS_MAX: Final = 128
_PARTS: Final = {
    chart.SPONSOR_COMMITTED.name: "committed",
    chart.MATCH_UNVESTED.name: "unvested",
    chart.MATCH_VESTED.name: "vested",
    codes.AWAITING: "awaiting",
}


@dataclass(slots=True)
class Resolved:
    """One row as it will be posted; fields as in `products.opening_row`."""

    row: Row
    code: Code
    fund_id: UUID
    control_id: UUID
    currency: str
    amount: int
    account_id: UUID | None = None
    against: UUID | None = None
    partner_id: UUID | None = None
    member_id: UUID | None = None
    link_id: UUID | None = None
    enrolment_id: UUID | None = None
    product: str | None = None
    sponsor_id: UUID | None = None
    contributed_on: date | None = None
    contributed: int = 0
    window_start: date | None = None
    tier: int | None = None
    rule_version: int | None = None
    remittance_id: str | None = None
    remittance: UUID | None = None

    @property
    def group(self) -> UUID | None:
        """Whose rows stay together in one transaction."""
        return self.enrolment_id or self.member_id


@dataclass(frozen=True, slots=True)
class Programme:
    """What is asked about the programme that is opened."""

    id: UUID
    slug: str
    currency: str
    effective_on: date


@dataclass(frozen=True, slots=True)
class _Named:
    """Who a row is about, as it says."""

    partner: Joined | None
    key: tuple[UUID, MemberKey] | None


class Resolver:
    """Resolves rows for one load; ``windows`` are the match that they open."""

    def __init__(self, tx: Tx, books: Books, programme: Programme, add: Callable[[Fault], None]) -> None:
        self._tx, self._books, self._programme = tx, books, programme
        self._add = add
        partner_ids = tx.execute(
            text("SELECT partner_id FROM products.partner_programme WHERE programme_id = :id"),
            {"id": programme.id},
        )
        self._context: Context = load_context(tx, books, partner_ids.scalars().all())
        self._partners = {
            one.slug: one
            for several in self._context.joined.values()
            for one in several
            if one.programme_id == programme.id
        }
        self._versions: Sequence[Version] = books.programmes.versions(tx, programme.id)
        self._funds = {
            **chart.programme_funds(tx, programme.id),
            ADMINISTRATOR: administrator(tx, programme.id).fund,
        }
        sponsors = tx.execute(
            text(
                "SELECT slug, id, fund_id, uncommitted_account, committed_account, receivable_account FROM products.sponsor"
                " WHERE programme_id = :id"
            ),
            {"id": programme.id},
        )
        self._sponsors = {row.slug: row for row in sponsors}
        self._owned: dict[tuple[UUID, str, str, str], UUID] = {}
        self.windows: dict[tuple[UUID, date], OpenedWindow] = {}
        self._told: dict[tuple[UUID, UUID], tuple[int, Row]] = {}
        self._owed: dict[tuple[UUID, UUID], tuple[int, Row]] = {}
        self._remittances: dict[tuple[UUID, str], Row] = {}

    def resolve(self, rows: Iterable[Row]) -> Iterator[Resolved]:
        """Every row that has no fault; faults are told to ``add``."""
        each = iter(rows)
        while together := list(islice(each, TOGETHER)):
            yield from self._together(together)

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
            what_differs = window.differs(self._programme.effective_on, by_slug)
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

    def _together(self, rows: Sequence[Row]) -> Iterator[Resolved]:
        named: list[tuple[Row, _Named]] = []
        for row in rows:
            try:
                named.append((row, self._who(row)))
            except Faulty as faulty:
                self._add(row.fault(faulty))
        keys = [who.key for _, who in named if who.key is not None]
        members = load_members(self._tx, self._books.keyring, keys) if keys else {}
        ours = {
            key: next((one for one in several if one.programme_id == self._programme.id and one.active), None)
            for key, several in members.items()
        }
        enrolments = load_enrolments(
            self._tx, sorted({one.member_id for one in ours.values() if one is not None})
        )
        for row, who in named:
            try:
                member = ours.get(who.key) if who.key is not None else None
                yield self._one(row, who, member, enrolments.get(member.member_id, ()) if member else ())
            except Faulty as faulty:
                self._add(row.fault(faulty))

    def _who(self, row: Row) -> _Named:
        slug, name = row.text("partner"), row.text("member")
        partner = self._partners.get(slug)
        if slug and partner is None:
            raise Faulty("partner", "no such partner has joined the programme")
        if not name:
            return _Named(partner, None)
        if partner is None:
            raise Faulty("partner", "a member is named as its partner knows it: say which partner")
        kind: Final = "id" if name.startswith("mem_") else "partner_reference"
        return _Named(partner, (partner.partner_id, MemberKey(kind, name)))

    def _one(
        self, row: Row, who: _Named, member: MemberRecord | None, enrolments: Sequence[Enrolled]
    ) -> Resolved:
        try:
            code = codes.code_of(row.text("account").lower())
        except ValueError as error:
            raise Faulty("account", str(error)) from None
        currency = (row.text("currency") or self._programme.currency).upper()
        try:
            exponent(currency)
        except InvalidInput:
            raise Faulty("currency", "this is no currency (ISO 4217)") from None
        if currency != self._programme.currency and code.name not in codes.SHARED:
            raise Faulty(
                "currency", f"accounts of members, partners and sponsors are in {self._programme.currency}"
            )
        amount = row.amount("amount", currency)
        if amount is None:
            raise Faulty("amount", "there is no amount")
        if code.floor is not None and amount < code.floor:
            raise Faulty("amount", "this account may not be below zero")
        partner = who.partner
        if who.key is not None and member is None:
            raise Faulty("member", "the partner has no such member in this programme")
        if code.name in codes.SHARED:
            self._only(row, "account", "amount", "currency", "fund")
            return self._shared(row, code, self._fund(row, SAVERS), currency, amount)
        if code.name in codes.OF_SPONSOR:
            self._only(row, "account", "amount", "currency", "fund", "sponsor")
            return self._of_sponsor(row, code, currency, amount)
        if code.name in codes.OF_PARTNER:
            self._only(row, "account", "amount", "currency", "fund", "partner")
            return self._of_partner(row, code, partner, currency, amount)
        if partner is None or member is None:
            raise Faulty("member", "this account is a member's: say whose, and of which partner")
        if code.name in codes.OF_MEMBER:
            self._only(row, "account", "amount", "currency", "fund", "partner", "member")
            account = (
                member.unapplied_account if code is chart.MEMBER_UNAPPLIED else member.receivable_account
            )
            return self._new(
                row, code, self._savers, currency, amount, account, partner=partner, member=member
            )
        return self._of_enrolment(row, code, currency, amount, partner, member, enrolments)

    @property
    def _savers(self) -> UUID:
        return self._funds[SAVERS]

    def _only(self, row: Row, *columns: str) -> None:
        """Nothing that is filled in is left out of account."""
        for column, value in row.cells.items():
            if value is not None and column not in columns:
                raise Faulty(column, "a row of this account has nothing here")

    def _fund(self, row: Row, otherwise: str) -> UUID:
        role = row.text("fund").removeprefix(f"{self._programme.slug}/") or otherwise
        if role not in self._funds:
            raise Faulty("fund", f"no such fund; there are {', '.join(sorted(self._funds))}")
        return self._funds[role]

    def _shared(self, row: Row, code: Code, fund: UUID, currency: str, amount: int) -> Resolved:
        return self._new(row, code, fund, currency, amount, self._own(fund, code, "", currency))

    def _of_sponsor(self, row: Row, code: Code, currency: str, amount: int) -> Resolved:
        sponsor = self._sponsors.get(row.text("sponsor"))
        if sponsor is None:
            raise Faulty("sponsor", "the programme has no such sponsor")
        account = (
            sponsor.uncommitted_account if code is chart.SPONSOR_UNCOMMITTED else sponsor.receivable_account
        )
        made = self._new(row, code, sponsor.fund_id, currency, amount, account)
        made.sponsor_id = sponsor.id
        return made

    def _of_partner(
        self, row: Row, code: Code, partner: Joined | None, currency: str, amount: int
    ) -> Resolved:
        if partner is None:
            raise Faulty("partner", "this account is a partner's: say whose")
        fund = self._fund(row, SAVERS)
        if code is chart.PARTNER_RECEIVABLE:
            before, first = self._told.get((fund, partner.partner_id), (0, row))
            self._told[fund, partner.partner_id] = (before + amount, first)
            return self._new(row, code, fund, currency, amount, None, partner=partner)
        if fund != self._savers:
            raise Faulty("fund", "a partner's prefund is in the savers' fund")
        return self._new(row, code, fund, currency, amount, partner.account(fund, code), partner=partner)

    def _of_enrolment(
        self,
        row: Row,
        code: Code,
        currency: str,
        amount: int,
        partner: Joined,
        member: MemberRecord,
        enrolments: Sequence[Enrolled],
    ) -> Resolved:
        on = row.day("contributed_on")
        if on is not None and on > self._programme.effective_on:
            raise Faulty("contributed_on", "this is after the day that the books are opened for")
        enrolled, product = self._enrolled(row, code, enrolments, on or self._programme.effective_on)
        if code.name in codes.COLLECTED:
            fund = self._funds[chart.fund_role(product)]
            account: UUID | None = partner.collected_for(product)
        elif enrolled.accounts is None:
            raise Faulty(
                "product", "this product's contributions are passed on: it has no savings and no match"
            )
        else:
            fund = self._savers
            account = {
                chart.MEMBER_SAVINGS.name: enrolled.accounts.savings,
                chart.CONTRIBUTIONS_PENDING.name: enrolled.accounts.pending,
                chart.MATCH_UNVESTED.name: enrolled.accounts.unvested,
                chart.MATCH_VESTED.name: enrolled.accounts.vested,
            }.get(code.name)
        made = self._new(row, code, fund, currency, amount, account, partner=partner, member=member)
        made.enrolment_id, made.product = enrolled.id, product.code
        if code.name in codes.OF_MATCH:
            if on is None:
                raise Faulty("contributed_on", "say in which window the match was earned, by any day in it")
            self._only(
                row,
                "account",
                "amount",
                "currency",
                "fund",
                "partner",
                "member",
                "product",
                "sponsor",
                "contributed_on",
            )
            self._share(row, made, member, enrolled, product, on)
            return made
        self._contribution(row, made, partner, member, enrolled, product, on)
        return made

    def _enrolled(
        self, row: Row, code: Code, enrolments: Sequence[Enrolled], on: date
    ) -> tuple[Enrolled, Product]:
        wanted = row.text("product")
        programme = version_on(self._versions, on).programme
        kind = {chart.AGENCY_COLLECTED.name: "agency", chart.UNEARNED_CONTRIBUTIONS.name: "pool"}.get(
            code.name, "savers"
        )
        fitting = [
            (one, programme.product(one.product))
            for one in enrolments
            if one.product in programme.codes
            and wanted in ("", one.product)
            and programme.product(one.product).destination.kind == kind
        ]
        if not fitting:
            raise Faulty("product" if wanted else "member", "the member holds no product of this kind")
        if len({product.code for _, product in fitting}) > 1:
            raise Faulty("product", "the member holds several products of this kind: say which")
        current = [one for one in fitting if one[0].ended_on is None] or fitting
        if len(current) > 1:
            raise Faulty(
                "product", "the member holds this product several times: it can't be told which is meant"
            )
        return current[0]

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

    def _share(
        self, row: Row, made: Resolved, member: MemberRecord, enrolled: Enrolled, product: Product, on: date
    ) -> None:
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
        parts = {part: getattr(share, part) for part in _PARTS.values()}
        parts[_PARTS[made.code.name]] += made.amount
        opened.shares[sponsor.id] = Share(**parts)

    def _contribution(
        self,
        row: Row,
        made: Resolved,
        partner: Joined,
        member: MemberRecord,
        enrolled: Enrolled,
        product: Product,
        on: date | None,
    ) -> None:
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

    def _new(
        self,
        row: Row,
        code: Code,
        fund: UUID,
        currency: str,
        amount: int,
        account: UUID | None,
        *,
        partner: Joined | None = None,
        member: MemberRecord | None = None,
    ) -> Resolved:
        return Resolved(
            row,
            code,
            fund,
            self._own(fund, MIGRATION_CONTROL, "", currency),
            currency,
            amount,
            account,
            partner_id=partner.partner_id if partner else None,
            member_id=member.member_id if member else None,
            link_id=member.link_id if member else None,
        )

    def _own(self, fund: UUID, code: Code, owner: str, currency: str) -> UUID:
        key = (fund, code.name, owner, currency)
        if key not in self._owned:
            [self._owned[key]] = open_accounts(self._tx, [chart.spec(code, fund, owner, currency)])
        return self._owned[key]


def _yes(row: Row, column: str) -> bool:
    said = row.text(column).lower()
    if said not in ("", "yes", "no"):
        raise Faulty(column, "say yes or no")
    return said == "yes"
