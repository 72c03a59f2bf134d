"""On which day a bank can execute what it is asked for at an instant."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from integrations.rails.bank_file.options import BankFileOptions
from products.settlements.calendar import business_days


def execution_day(options: BankFileOptions, at: datetime, asked_on: date) -> date:
    """The bank's first business day that is not before `asked_on`, nor past its cut-off at `at`."""
    local = at.astimezone(ZoneInfo(options.time_zone))
    past_cut_off = local.time() >= options.cut_off
    calendar = business_days(options.holidays)
    day = calendar.on_or_after(max(asked_on, local.date() + timedelta(days=past_cut_off)))
    while day in options.closed_on:
        day = calendar.on_or_after(day + timedelta(days=1))
    return day
