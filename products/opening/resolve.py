"""A file's rows, resolved: whose account each is, which contribution it stands for, and every fault there is.

Rows are resolved in sets (members by the thousand). Nothing is posted; accounts that a fund does not have yet are opened.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import open_accounts
from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.money import exponent
from products import chart
from products.chart import ADMINISTRATOR, MIGRATION_CONTROL, SAVERS, Code
from products.members.batch import load_members
from products.members.models import MemberRecord
from products.opening import codes
from products.opening.contributions import Contributions
from products.opening.given import Fault, Faulty, Row
from products.opening.rows import Resolved
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
    """Resolves rows for one load."""

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
        self._contributions = Contributions(tx, self._versions, self._sponsors, programme.effective_on, add)

    def resolve(self, rows: Iterable[Row]) -> Iterator[Resolved]:
        """Every row that has no fault; faults are told to ``add``."""
        each = iter(rows)
        while together := list(islice(each, TOGETHER)):
            yield from self._together(together)

    def finish(self) -> Collection[OpenedWindow]:
        """Judge what takes all rows; the match that they open."""
        self._contributions.finish()
        return self._contributions.windows.values()

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
            self._contributions.tell(row, fund, partner, amount)
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
            self._contributions.share(made, member, enrolled, product, on)
            return made
        self._contributions.contribution(made, partner, member, enrolled, product, on)
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
