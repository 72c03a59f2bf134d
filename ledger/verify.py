"""Verification: everything is replayed from the stored rows, and the first lies are named.

One repeatable-read snapshot, streamed in bounded memory, as mizan_auditor beside a running service. The journal is
replayed twice: by id, where each leaf is hashed again from its rows (`ledger.replay`), and in the order in which it was
sealed, where each seal's tree is built again and the chain is followed. What must hold between tables is compared in
sets by the database (`ledger.checks`).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import text

from ledger.checks import SET_CHECKS
from ledger.database import Tx
from ledger.errors import Conflict
from ledger.merkle import Tree
from ledger.replay import replay
from ledger.report import Check, ExtraCheck, Progress, Report, Tally
from ledger.seals import GENESIS, Seal, entry_hash, heads, journal_entries, public_keys, seals_numbered

CAVEAT = (
    "{unsealed} of {transactions} transactions are not sealed yet. For these, a change is found where rows contradict"
    " each other (leaf, balance, reference, folded movement); a change that was carried through all of them, and a seal"
    " that was cut off the end of the chain, are found once sealed, or by verifying against published heads."
)
_PUBLISHED_PAGE = 1_000


def verify(
    tx: Tx,
    *,
    extra_checks: Sequence[ExtraCheck] = (),
    against: Iterable[Seal] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Replays the whole ledger in the transaction's snapshot.

    `against` are heads published earlier (`seals.read_heads`): with them, nothing that they cover can have been
    rewritten, even by someone who holds the sealing key. `extra_checks` add what stands on the ledger. Never raises for
    a lie, however odd: it is in the report. Raises Conflict unless the transaction is a repeatable-read one
    (`Database.read`), as its statements must all see the same books.
    """
    if tx.execute(text("SHOW transaction_isolation")).scalar_one() not in ("repeatable read", "serializable"):
        raise Conflict("verification needs one snapshot: use a repeatable-read transaction")
    # A scan of large books takes its time; what may not is set by whoever calls.
    tx.execute(text("SET LOCAL statement_timeout = 0"))
    report = progress or _silent
    checks = list(replay(tx, report))
    leaves, postings = checks[0].checked, checks[1].checked
    sealed, unsealed = _replay_seals(tx, report, leaves)
    checks += sealed
    if against is not None:
        checks.append(_published(tx, against))
    for number, check in enumerate([one.run for one in SET_CHECKS] + list(extra_checks), start=1):
        checks.append(check(tx))
        report(checks[-1].name, number, len(SET_CHECKS) + len(extra_checks))
    return Report(
        transactions=leaves,
        postings=postings,
        unsealed=unsealed,
        checks=tuple(checks),
        caveat=CAVEAT.format(unsealed=unsealed, transactions=leaves) if unsealed else None,
    )


def _silent(_name: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def _entries(tx: Tx) -> Iterator[tuple[int, int, bytes, int]]:
    """(era, xid, entry hash, number of postings) of the whole journal in its order."""
    eras = tx.execute(text("SELECT DISTINCT era FROM ledger.transaction ORDER BY era")).scalars().all()
    for era in eras:
        for xid, leaf, postings in journal_entries(tx, era, 0, None):
            yield era, xid, entry_hash(era, xid, leaf), postings


def _chain(tx: Tx) -> Iterator[Seal]:
    """Every seal, by number."""
    after = 0
    while page := heads(tx, after=after):
        yield from page
        after = page[-1].number


class _SealTallies:
    """The checks that a seal must pass."""

    def __init__(self) -> None:
        self.chain = Tally("seals follow each other")
        self.signatures = Tally("seals are signed")
        self.ranges = Tally("seals leave nothing out")
        self.roots = Tally("seals cover what was posted")

    def verdicts(self) -> list[Check]:
        return [tally.verdict() for tally in (self.chain, self.signatures, self.ranges, self.roots)]


def _replay_seals(tx: Tx, progress: Progress, transactions: int) -> tuple[list[Check], int]:
    """The chain beside the journal, both in order; and how many transactions wait for their seal."""
    tallies = _SealTallies()
    keys = public_keys(tx)
    entries = _entries(tx)
    entry = next(entries, None)
    last: Seal | None = None
    done = 0
    for seal in _chain(tx):
        _check_link(tallies, seal, last, keys)
        tree, postings = Tree(), 0
        while entry is not None and entry[:2] < (seal.era, seal.to_xid):
            era, xid, leaf, count = entry
            if (era, xid) < (seal.era, seal.from_xid):
                tallies.ranges.lie(
                    f"transaction id {xid} of era {era}", f"lies before seal {seal.number} and in none"
                )
            else:
                tree.append(leaf)
                postings += count
            done += 1
            entry = next(entries, None)
        _check_cover(tallies.roots, seal, tree, postings)
        last = seal
        progress(tallies.roots.name, done, transactions)
    unsealed = 0
    while entry is not None:
        unsealed += 1
        entry = next(entries, None)
    return tallies.verdicts(), unsealed


def _check_link(tallies: _SealTallies, seal: Seal, last: Seal | None, keys: dict[str, bytes]) -> None:
    where = f"seal {seal.number}"
    for tally in (tallies.chain, tallies.signatures, tallies.ranges, tallies.roots):
        tally.checked += 1
    if seal.number != (last.number + 1 if last is not None else 1):
        tallies.chain.lie(where, "the seal before it is missing")
    if seal.previous != (last.head if last is not None else GENESIS):
        tallies.chain.lie(where, "does not name the head of the seal before it")
    if seal.total_transactions != seal.transactions + (last.total_transactions if last is not None else 0):
        tallies.chain.lie(where, "its running total of transactions does not follow")
    if seal.total_postings != seal.postings + (last.total_postings if last is not None else 0):
        tallies.chain.lie(where, "its running total of postings does not follow")
    if not _head_holds(seal):
        tallies.chain.lie(where, "its fields do not hash to its head")
    if not seal.signature_holds(keys):
        tallies.signatures.lie(where, f"key {seal.key_id} did not sign its head")
    expected = last.to_xid if last is not None and last.era == seal.era else 0
    if (
        seal.from_xid != expected
        or seal.to_xid <= seal.from_xid
        or (last is not None and seal.era < last.era)
    ):
        tallies.ranges.lie(
            where,
            f"covers {seal.from_xid} to {seal.to_xid} of era {seal.era}, expected to begin at {expected}",
        )


def _head_holds(seal: Seal) -> bool:
    try:
        return seal.computed_head() == seal.head
    except struct.error:  # a number that no field of the encoding can hold
        return False


def _check_cover(tally: Tally, seal: Seal, tree: Tree, postings: int) -> None:
    where = f"seal {seal.number}, transaction ids {seal.from_xid} to {seal.to_xid} of era {seal.era}"
    if (tree.size, postings) != (seal.transactions, seal.postings):
        tally.lie(
            where,
            f"sealed {seal.transactions} transactions with {seal.postings} postings,"
            f" there are {tree.size} with {postings}",
        )
    elif tree.root() != seal.root:
        tally.lie(where, "one of its transactions was changed, moved or exchanged")


def _published(tx: Tx, against: Iterable[Seal]) -> Check:
    """Each published head against the stored one."""
    tally = Tally("seals are as they were published")
    published = iter(against)
    while page := list(islice(published, _PUBLISHED_PAGE)):
        known = seals_numbered(tx, [one.number for one in page])
        for one in page:
            tally.checked += 1
            stored = known.get(one.number)
            if stored is None:
                tally.lie(f"seal {one.number}", "was published and is no longer there")
            elif stored != one:
                tally.lie(
                    f"seal {one.number}", f"was published with the head {one.head.hex()} and has another now"
                )
    return tally.verdict()
