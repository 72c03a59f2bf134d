"""What files leave behind: a bank's rail with a file and an answer, and each partner's compared settlement file."""

from collections.abc import Sequence
from datetime import date

from integrations.rails import bank_file
from integrations.rails.bank_file import store
from integrations.rails.directory import validated
from integrations.rails.setting import Setting
from ledger.ids import new_id, public_id
from products.payouts import registry
from products.payouts.rails import Instruction, RailPayee
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee, Limits
from products.remittances.partners import Partner
from products.settlements import comparison
from products.settlements.comparison import FileLine, NewFile
from tests.integration.rails.bank import Bank
from tests.integration.rails.test_bank_file import OPTIONS
from tests.world import World


def leave_files(world: World, partners: Sequence[Partner]) -> None:
    """Leave a row in every table of files."""
    with world.databases.worker.begin() as tx:
        kept, _ = validated("bank_file", OPTIONS, {})
        new = NewRail(
            slug="kigali-bank",
            kind="bank_file",
            payee_kinds=("bank",),
            checks_payees=True,
            funded="bank",
            fee=Fee(0, 0, "fund"),
            arrival=Arrival("business_days", 1, 2, ("RW",)),
            limits=Limits(1, None, None, None, None, 1_000),
            options=kept,
        )
        registry.create(tx, world.programmes["ejoheza"], new, clock=world.clock)
    keyring = world.books.keyring
    setting = Setting(world.clock, "sandbox", "", world.databases.worker, keyring, "kigali-bank", "RWF")
    rail = bank_file.build(kept, {}, setting)
    payee = RailPayee("Uwimana Alice", "bank", {"account": "1", "bank_code": "BKIGRWRW", "country": "RW"})
    asked = Instruction(new_id(), public_id("pay", new_id()), 1_500, "RWF", payee)
    rail.submit(new_id(), [asked], date(2026, 3, 2))
    with world.databases.worker.begin() as tx:
        (file,) = store.files(tx, limit=1)
        bank = Bank.given(store.fetch(tx, keyring, world.clock, file.id)[1])
        rail.take(tx, bank.says(world.clock.now(), "ACSC"))
        for partner in partners:
            programme = world.programmes["ejoheza"]
            mapping = comparison.keep_mapping(tx, world.clock, partner.id, programme, {})
            line = FileLine(2, f"{partner.slug}-is-not-here", "collection", 1, "RWF", None)
            day = date(2026, 3, 2)
            comparison.compare(
                tx,
                world.clock,
                NewFile(partner.id, programme, mapping, bytes(32), [line], day, day, False),
            )
