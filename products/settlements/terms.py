"""On which terms a partner pays in: dated, one row for each change, and never changed for a day that is past.

A contribution is judged by the terms of the day on which it was made: by which cut-off it counts for a day, what of it the
partner keeps as its fee, and whether it is the member's before the partner has paid. Limits and warnings are of now.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any, Final, Literal, get_args
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX
from products.programmes.scalars import format_percent, parse_percent
from products.settlements.calendar import Calendar, business_days

Terms = Literal["net", "prefunded", "guaranteed"]
Pays = Literal["gross", "net_of_fees"]
Bearer = Literal["administrator", "partner"]

END_OF_DAY: Final = 24 * 60
BUSINESS_DAYS_MAX: Final = 60
COUNTRIES_MAX: Final = 5
WARNING_PERCENT: Final = 80
ADMINISTRATOR: Final = "administrator"
"""The guarantor where nobody else is: its fund bears what a partner does not pay."""
ALWAYS: Final = date(1, 1, 1)
"""From when a partner's first terms hold: a late event may be of any day."""

_GUARANTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_CUT_OFF = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00", re.ASCII)


class TermsOfThePast(Conflict):
    """Contributions were made on these days already, by the terms that held then."""

    code = "terms_of_the_past"


@dataclass(frozen=True, slots=True)
class SettlementTerms:
    """A partner's terms in a programme from ``since`` on. Amounts are minor units of ``currency``.

    ``cut_off_minutes`` of the day in ``time_zone`` end it (1440: midnight); what is collected then or later counts for the
    next. ``pays`` net of fees, a partner keeps ``fee_fixed`` for each remittance and ``fee_percent`` of what it collected,
    which the administrator bears; paying gross, its fee is none of the books' business.
    """

    since: date
    terms: Terms
    currency: str
    time_zone: str
    cut_off_minutes: int = END_OF_DAY
    business_days: int = 1
    countries: tuple[str, ...] = ()
    pays: Pays = "gross"
    fee_fixed: int = 0
    fee_percent: Fraction = Fraction(0)
    fee_borne_by: Bearer = "partner"
    exposure_ceiling: int | None = None
    warning_percent: int = WARNING_PERCENT
    prefund_warning: int | None = None
    guarantor: str | None = None

    @property
    def calendar(self) -> Calendar:
        """The business days on which its money travels."""
        return Calendar(self.countries)

    @property
    def cut_off(self) -> str:
        """``HH:MM``."""
        return f"{self.cut_off_minutes // 60:02}:{self.cut_off_minutes % 60:02}"

    def collected_on(self, at: datetime) -> date:
        """The day for which what was paid at this instant counts; ``at`` must be aware."""
        if at.tzinfo is None:
            raise ValueError("an instant without a zone has no local date")
        local = at.astimezone(_zone(self.time_zone))
        late = local.hour * 60 + local.minute >= self.cut_off_minutes
        return local.date() + timedelta(days=1) if late else local.date()

    def expected_on(self, collected_on: date) -> date:
        """The day on which what was collected for a day is expected."""
        return self.calendar.after(collected_on, self.business_days)

    def fees(self, amounts: Sequence[int]) -> tuple[int, ...]:
        """What the partner keeps of each part of one remittance, in the parts' order.

        On the running total, rounded down, then differenced: the parts' fees add up to the remittance's, which is
        never more than what was collected.
        """
        if self.pays == "gross":
            return (0,) * len(amounts)
        kept: list[int] = []
        total = before = 0
        for amount in amounts:
            total += amount
            due = min(total, self.fee_fixed + int(self.fee_percent * total))
            kept.append(due - before)
            before = due
        return tuple(kept)

    @property
    def _decides(self) -> tuple[object, ...]:
        """What a contribution is judged by; the rest are limits and warnings, which look at what there is now."""
        return (
            self.terms, self.currency, self.time_zone, self.cut_off_minutes, self.business_days, self.countries,
            self.pays, self.fee_fixed, self.fee_percent, self.fee_borne_by, self.guarantor,
        )  # fmt: skip

    def differs_for_contributions(self, other: "SettlementTerms") -> bool:
        """Whether some contribution would be judged otherwise."""
        return self._decides != other._decides


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def parse_cut_off(written: str) -> int:
    """``"17:00"`` as minutes; ``"24:00"`` is the end of the day. Raises InvalidInput."""
    if not _CUT_OFF.fullmatch(written) or written == "00:00":
        raise InvalidInput("a cut-off is a time of the day, from 00:01 to 24:00", pointer="/cut_off")
    hours, minutes = written.split(":")
    return int(hours) * 60 + int(minutes)


def on_day(history: Sequence[SettlementTerms], day: date) -> SettlementTerms:
    """The terms of a day; before the first, the first. ``history`` is sorted by day."""
    found = history[0]
    for one in history:
        if one.since <= day:
            found = one
    return found


def checked(terms: SettlementTerms) -> SettlementTerms:
    """The same terms, countries sorted. Raises InvalidInput for what can't be agreed."""
    for value, choices, pointer in (
        (terms.terms, Terms, "/terms"),
        (terms.pays, Pays, "/pays"),
        (terms.fee_borne_by, Bearer, "/fee_borne_by"),
    ):
        if value not in get_args(choices):
            raise InvalidInput(f"one of {', '.join(get_args(choices))}", pointer=pointer)
    if terms.time_zone not in available_timezones():
        raise InvalidInput(f"“{terms.time_zone}” is no time zone of the IANA database", pointer="/time_zone")
    _within(terms.cut_off_minutes, 1, END_OF_DAY, "/cut_off", "a cut-off is a time of the day")
    _within(terms.business_days, 0, BUSINESS_DAYS_MAX, "/business_days", "business days are")
    _within(terms.warning_percent, 1, 100, "/warning_percent", "a warning level is a percentage,")
    _within(terms.fee_fixed, 0, AMOUNT_MAX, "/fee_fixed", "a fee is in minor units,")
    for amount, pointer in (
        (terms.exposure_ceiling, "/exposure_ceiling"),
        (terms.prefund_warning, "/prefund_warning"),
    ):
        if amount is not None:
            _within(amount, 0, AMOUNT_MAX, pointer, "an amount is in minor units,")
    if not 0 <= terms.fee_percent <= 1:
        raise InvalidInput("a fee is at most all that was collected", pointer="/fee_percent")
    if terms.pays == "net_of_fees" and terms.fee_borne_by == "partner":
        raise InvalidInput("a partner that bears its own fee pays gross", pointer="/pays")
    if terms.pays == "net_of_fees" and terms.terms == "prefunded":
        raise InvalidInput("what is paid in before is paid in gross", pointer="/pays")
    if len(terms.countries) > COUNTRIES_MAX:
        raise InvalidInput(f"at most {COUNTRIES_MAX} countries", pointer="/countries")
    if terms.guarantor is not None:
        if terms.terms == "prefunded":
            raise InvalidInput("what is paid in before needs no guarantor", pointer="/guarantor")
        if not _GUARANTOR.fullmatch(terms.guarantor):
            raise InvalidInput("1 to 63 lower-case letters, digits and inner hyphens", pointer="/guarantor")
    return replace(terms, countries=business_days(terms.countries).countries)


def _within(value: int, least: int, most: int, pointer: str, what: str) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{what} from {least} to {most}", pointer=pointer)


def load_terms(
    tx: Tx, partner_ids: Sequence[UUID]
) -> Mapping[tuple[UUID, UUID], tuple[SettlementTerms, ...]]:
    """The terms of partners by (partner, programme), sorted by day."""
    cur = cursor(tx)
    cur.execute(
        """SELECT DISTINCT ON (partner_id, programme_id, since)
                  partner_id, programme_id, since, terms, currency, time_zone, cut_off_minutes, business_days, countries,
                  pays, fee_fixed, fee_percent, fee_borne_by, exposure_ceiling, warning_percent, prefund_warning, guarantor
           FROM products.settlement_terms WHERE partner_id = ANY (%b)
           ORDER BY partner_id, programme_id, since, recorded_at DESC, id DESC""",
        (list(partner_ids),),
    )
    found: dict[tuple[UUID, UUID], list[SettlementTerms]] = {}
    for row in cur.fetchall():
        # the columns in the order of the fields
        values: dict[str, Any] = dict(zip(SettlementTerms.__slots__, row[2:], strict=True))
        terms = SettlementTerms(
            **values
            | {"countries": tuple(values["countries"]), "fee_percent": parse_percent(values["fee_percent"])}
        )
        found.setdefault((row[0], row[1]), []).append(terms)
    return {key: tuple(rows) for key, rows in found.items()}


def write_terms(tx: Tx, partner_id: UUID, programme_id: UUID, terms: SettlementTerms, clock: Clock) -> None:
    """Write terms down as they are; `set_terms` says whether they may be."""
    tx.execute(
        text(
            "INSERT INTO products.settlement_terms (id, partner_id, programme_id, since, terms, currency, time_zone,"
            " cut_off_minutes, business_days, countries, pays, fee_fixed, fee_percent, fee_borne_by, exposure_ceiling,"
            " warning_percent, prefund_warning, guarantor, recorded_at) VALUES (:id, :partner, :programme, :since, :terms,"
            " :currency, :zone, :cut_off, :days, :countries, :pays, :fixed, :percent, :bearer, :ceiling, :warning,"
            " :prefund, :guarantor, :now)"
        ),
        {
            "id": new_id(), "partner": partner_id, "programme": programme_id, "since": terms.since, "terms": terms.terms,
            "currency": terms.currency, "zone": terms.time_zone, "cut_off": terms.cut_off_minutes,
            "days": terms.business_days, "countries": list(terms.countries), "pays": terms.pays,
            "fixed": terms.fee_fixed, "percent": format_percent(terms.fee_percent), "bearer": terms.fee_borne_by,
            "ceiling": terms.exposure_ceiling, "warning": terms.warning_percent, "prefund": terms.prefund_warning,
            "guarantor": terms.guarantor, "now": clock.now(),
        },
    )  # fmt: skip
