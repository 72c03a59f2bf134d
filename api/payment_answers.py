"""A bank's answer becomes what stands of payouts: read by the rail's adapter and applied to the books in one transaction."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from api.bootstrap import Services
from integrations.rails import bank_file
from integrations.rails.bank_file.rail import Taken
from integrations.rails.setting import Setting
from ledger.database import Tx
from ledger.errors import Conflict, NotFound
from products.payouts import registry, reports

KIND: Final = "bank_file"


class NotABankFileRail(Conflict):
    """The rail is of another kind: no bank answers it by files."""

    code = "not_a_bank_file_rail"


def take(
    tx: Tx, services: Services, rail: str, content: bytes, *, programmes: Collection[UUID] | None
) -> Taken:
    """Take an answer for a rail, as the worker's role; `programmes` are those that the caller sees (None: all).

    Raises NotFound, `NotABankFileRail`, and what `BankFileRail.take` refuses.
    """
    found = registry.find(tx, rail)
    if programmes is not None and found.programme_id not in programmes:
        raise NotFound("There is no such rail.")
    if found.kind != KIND:
        raise NotABankFileRail("The rail makes no payment files.")
    setting = Setting(
        services.clock,
        services.environment.value,
        services.settings.public_url,
        services.worker,
        services.keyring,
        found.slug,
        found.currency,
    )
    adapter = bank_file.build(found.options, {}, setting)
    taken = adapter.take(tx, content)
    reports.apply(
        tx,
        services.books,
        found,
        taken.reports,
        source="file",
        asks_after=timedelta(seconds=adapter.asks_after_seconds),
    )
    return taken
