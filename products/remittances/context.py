"""What a batch of remittances needs to know, loaded with a few set-based queries."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, cached_property
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.periods import effective_day
from products import chart
from products.chart import EnrolmentAccounts
from products.keyring import Keyring
from products.programmes.model import Choice, Product
from products.programmes.registry import Programmes, Version
from products.programmes.scalars import parse_percent
from products.savings.match import Sponsor
from products.settlements.terms import SettlementTerms, Terms, load_terms, on_day


@dataclass(frozen=True, slots=True)
class Books:
    """What services need besides the transaction: the clock, the keys and the compiled programmes."""

    clock: Clock
    keyring: Keyring
    programmes: Programmes


@dataclass(frozen=True)
class Joined:
    """A partner's part in a programme: its terms on a day, and its accounts and those of the funds it pays into."""

    partner_id: UUID
    programme_id: UUID
    agreed: SettlementTerms
    history: Sequence[SettlementTerms]
    collection: str
    currency: str
    funds: Mapping[str, UUID]
    accounts: Mapping[tuple[UUID, str, str], UUID]
    slug: str

    @property
    def terms(self) -> Terms:
        """Net, prefunded or guaranteed: on the day that this is of."""
        return self.agreed.terms

    def on(self, day: date) -> "Joined":
        """The same on the terms of a day: a contribution is judged by those of its own."""
        agreed = on_day(self.history, day)
        if agreed is self.agreed:
            return self
        if agreed not in self._on_other_terms:
            self._on_other_terms[agreed] = replace(self, agreed=agreed)
        return self._on_other_terms[agreed]

    @cached_property
    def _on_other_terms(self) -> dict[SettlementTerms, "Joined"]:
        return {}

    def account(self, fund: UUID, code: chart.Code, owner: str | None = None) -> UUID:
        """The account of this code in a fund; the owner is the partner unless said otherwise."""
        return self.accounts[fund, code.name, self.slug if owner is None else owner]

    @cached_property
    def savers(self) -> UUID:
        """The savers' fund of the programme."""
        return self.funds[chart.SAVERS]

    def source(self, fund: UUID) -> UUID:
        """What is debited in a fund for money that this partner collected."""
        return self._sources[fund]

    @cached_property
    def _sources(self) -> dict[UUID, UUID]:
        return {fund: self._source(fund) for fund in self.funds.values()}

    def _source(self, fund: UUID) -> UUID:
        if self.terms != "prefunded":
            return self.account(fund, chart.PARTNER_RECEIVABLE)
        if fund == self.savers:
            return self.account(fund, chart.PARTNER_PREFUND)
        return self.account(fund, chart.DUE_FROM_FUNDS, "")

    @property
    def settles_at_once(self) -> bool:
        """Whether what this partner collects is the member's to spend before the partner has paid it in."""
        return self.terms != "net"

    @property
    def owes(self) -> bool:
        """Whether this partner still has to pay in what it collects."""
        return self.terms != "prefunded"

    def limited_by(self, fund: UUID) -> UUID:
        """The account that limits what this partner may announce for a fund: its prefund, or what it may owe there."""
        if self.terms == "prefunded":
            return self.account(self.savers, chart.PARTNER_PREFUND)
        return self.account(fund, chart.PARTNER_RECEIVABLE)

    def collected_for(self, product: Product) -> UUID:
        """What is credited for an agency's scheme or a pool."""
        fund = self.funds[chart.fund_role(product)]
        return self.account(fund, chart.COLLECTED[product.destination.kind], product.destination.code)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A member's enrolment, as stored, with its ledger accounts where the product is held for savers."""

    id: UUID
    product: str
    choice: Choice
    entry_age: int | None
    enrolled_on: date
    ended_on: date | None
    accounts: EnrolmentAccounts | None


class Context:
    """Partners, programmes, sponsors and their accounts, as one batch sees them."""

    def __init__(
        self,
        joined: Mapping[UUID, Sequence[Joined]],
        versions: Mapping[UUID, Sequence[Version]],
        sponsors: Mapping[UUID, Mapping[str, Sponsor]],
        available: dict[UUID, int],
    ) -> None:
        self.joined = joined
        self.versions = versions
        self.sponsors = sponsors
        self.available = available

    def collecting_by_rule(self) -> "Context":
        """The same, with every partner collecting what the rules compute: how a quote sees it."""
        joined = {
            partner: [replace(one, collection="by_rule") for one in several]
            for partner, several in self.joined.items()
        }
        return Context(joined, self.versions, self.sponsors, self.available)

    def exhaust(self, accounts: Collection[UUID]) -> None:
        """Treat accounts that refused as empty: their sponsors enqueue, their partners' events are parked."""
        for account in accounts:
            self.available[account] = 0
        for sponsors in self.sponsors.values():
            for sponsor in sponsors.values():
                if sponsor.uncommitted in accounts:
                    sponsor.available = 0

    def programme_of(self, partner_id: UUID, currency: str) -> Joined | None:
        """The programme that a partner's money in this currency is for; None where there is none."""
        return next((one for one in self.joined.get(partner_id, ()) if one.currency == currency), None)

    def joined_in(self, partner_id: UUID, programme_id: UUID) -> Joined:
        """A partner's part in a programme that it has joined."""
        return next(one for one in self.joined[partner_id] if one.programme_id == programme_id)


def version_on(versions: Sequence[Version], on: date) -> Version:
    """The latest of a programme's versions in force on a date; before the first, the first."""
    current = versions[0]
    for version in versions:
        if version.programme.validity.in_force_from <= on:
            current = version
    return current


def load_context(tx: Tx, books: Books, partner_ids: Iterable[UUID]) -> Context:
    """Load what partners need: their programmes in every version, sponsors, funds and shared accounts."""
    cur = cursor(tx)
    cur.execute(
        """SELECT pp.partner_id, p.slug, pp.programme_id, pp.collection, g.currency, g.time_zone
           FROM products.partner_programme pp
           JOIN products.partner p ON p.id = pp.partner_id
           JOIN products.programme g ON g.id = pp.programme_id
           WHERE pp.partner_id = ANY (%b) AND p.kind = 'remitter' ORDER BY pp.joined_at, pp.programme_id""",
        (list(set(partner_ids)),),
    )
    rows = cur.fetchall()
    programme_ids = sorted({row[2] for row in rows})
    funds: dict[UUID, dict[str, UUID]] = {id_: {} for id_ in programme_ids}
    cur.execute(
        "SELECT programme_id, role, fund_id FROM products.programme_fund WHERE programme_id = ANY (%b)",
        (programme_ids,),
    )
    for programme_id, role, fund_id in cur.fetchall():
        funds[programme_id][role] = fund_id
    accounts, available = _shared_accounts(
        tx, [fund for roles in funds.values() for fund in roles.values()], sorted({row[0] for row in rows})
    )
    terms = load_terms(tx, sorted({row[0] for row in rows}))
    now = books.clock.now()
    joined: dict[UUID, list[Joined]] = {}
    for partner_id, slug, programme_id, collection, currency, zone in rows:
        history = terms[partner_id, programme_id]
        joined.setdefault(partner_id, []).append(
            Joined(
                partner_id,
                programme_id,
                on_day(history, effective_day(now, zone)),
                history,
                collection,
                currency,
                funds[programme_id],
                accounts,
                slug,
            )
        )
    return Context(
        joined,
        {id_: books.programmes.versions(tx, id_) for id_ in programme_ids},
        load_sponsors(tx, programme_ids),
        available,
    )


def _shared_accounts(
    tx: Tx, funds: Sequence[UUID], partner_ids: Sequence[UUID]
) -> tuple[dict[tuple[UUID, str, str], UUID], dict[UUID, int]]:
    """The hot accounts of these funds and partners by (fund, code, owner), and what the limited ones still take.

    Those in the programme's own currency: a fund's money at the bank may be in others too.
    """
    cur = cursor(tx)
    cur.execute(
        """SELECT a.fund_id, a.code, a.owner, a.id,
                  CASE WHEN a.floor IS NOT NULL THEN b.credits - b.debits - b.held - a.floor
                       WHEN a.ceiling IS NOT NULL THEN a.ceiling - (b.debits - b.credits) END
           FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
           JOIN products.programme_fund f ON f.fund_id = a.fund_id
           JOIN products.programme g ON g.id = f.programme_id AND g.currency = a.currency
           WHERE a.hot AND a.fund_id = ANY (%b) AND (a.partner_id IS NULL OR a.partner_id = ANY (%b))""",
        (list(funds), list(partner_ids)),
    )
    accounts: dict[tuple[UUID, str, str], UUID] = {}
    available: dict[UUID, int] = {}
    for fund_id, code, owner, account_id, room in cur.fetchall():
        accounts[fund_id, code, owner] = account_id
        if room is not None:
            available[account_id] = room
    return accounts, available


def load_sponsors(tx: Tx, programme_ids: Sequence[UUID]) -> dict[UUID, dict[str, Sponsor]]:
    """The sponsors of programmes by slug, with what each has uncommitted right now."""
    cur = cursor(tx)
    cur.execute(
        """SELECT s.programme_id, s.slug, s.id, s.uncommitted_account, s.committed_account,
                  b.credits - b.debits - b.held, s.queueing
           FROM products.sponsor s JOIN ledger.account_balance b ON b.account_id = s.uncommitted_account
           WHERE s.programme_id = ANY (%b)""",
        (list(programme_ids),),
    )
    sponsors: dict[UUID, dict[str, Sponsor]] = {id_: {} for id_ in programme_ids}
    for programme_id, slug, id_, uncommitted, committed, available, queueing in cur.fetchall():
        sponsors[programme_id][slug] = Sponsor(id_, slug, uncommitted, committed, available, queueing)
    return sponsors


def load_enrolments(tx: Tx, member_ids: Sequence[UUID]) -> dict[UUID, list[Enrolled]]:
    """The enrolments of members, ended ones too: a late event is judged by when the migrant paid."""
    cur = cursor(tx)
    cur.execute(
        """SELECT member_id, id, product, choice ->> 'percent', (choice -> 'amount' ->> 'amount')::bigint,
                  (terms ->> 'entry_age')::int, enrolled_on, ended_at::date, pending_account, savings_account,
                  unvested_account, vested_account
           FROM products.enrolment WHERE member_id = ANY (%b) ORDER BY member_id, enrolled_at, id""",
        (list(member_ids),),
    )
    enrolments: dict[UUID, list[Enrolled]] = {}
    for (
        member,
        id_,
        product,
        percent,
        amount,
        age,
        on,
        ended,
        pending,
        savings,
        unvested,
        vested,
    ) in cur.fetchall():
        accounts = None if pending is None else EnrolmentAccounts(pending, savings, unvested, vested)
        enrolments.setdefault(member, []).append(
            Enrolled(id_, product, _choice(percent, amount), age, on, ended, accounts)
        )
    return enrolments


@cache
def _choice(percent: str | None, amount: int | None) -> Choice:
    """A choice as it was validated and stored at enrolment; few differ."""
    return Choice(None if percent is None else parse_percent(percent), amount)
