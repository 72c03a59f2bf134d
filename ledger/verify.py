"""Verification: everything is replayed from the stored rows, and the first lies are named.

One repeatable-read snapshot, streamed in bounded memory, as mizan_auditor beside a running service. The journal is
replayed twice: by id, where each leaf is hashed again from its rows (`ledger.replay`), and in the order in which it was
sealed, where each seal's tree is built again and the chain is followed. The audit log is replayed beside it. What must hold between tables is compared in
sets by the database (`ledger.checks`).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import text

from ledger import audit
from ledger.checks import SET_CHECKS
from ledger.database import Tx
from ledger.errors import Conflict
from ledger.merkle import Tree
from ledger.replay import replay
from ledger.report import Check, ExtraCheck, Progress, Report, Tally
from ledger.seals import (
    GENESIS,
    Seal,
    audit_leaves,
    entry_hash,
    heads,
    journal_entries,
    public_keys,
    seals_numbered,
)

CAVEAT = (
    "{unsealed} of {transactions} transactions are not sealed yet. For these, a change is found where rows contradict"
    " each other (leaf, balance, reference, folded movement); a change that was carried through all of them, and a seal"
    " that was cut off the end of the chain, are found once sealed, or by verifying against published heads."
)
CAVEAT_LOG = (
    "{unsealed} of {entries} audit entries are not sealed yet. For these, a change is found where an entry contradicts its"
    " leaf; one that was taken away, or rewritten with its leaf, is found once sealed."
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
    checks = [*replay(tx, report), _replay_log(tx, report)]
    leaves, postings, audited = (check.checked for check in checks)
    sealed, unsealed, unsealed_entries = _replay_seals(tx, report, leaves)
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
        caveat=_caveat(unsealed, leaves, unsealed_entries, audited),
        audit_entries=audited,
        unsealed_audit_entries=unsealed_entries,
    )


def _silent(_name: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def _caveat(unsealed: int, transactions: int, unsealed_entries: int, entries: int) -> str | None:
    parts = []
    if unsealed:
        parts.append(CAVEAT.format(unsealed=unsealed, transactions=transactions))
    if unsealed_entries:
        parts.append(CAVEAT_LOG.format(unsealed=unsealed_entries, entries=entries))
    return " ".join(parts) or None


def _replay_log(tx: Tx, progress: Progress) -> Check:
    """Every audit entry hashed again, and its sealed values against the digests that its leaf covers."""
    tally = Tally("audit entries hash to their leaves")
    total = tx.execute(text("SELECT count(*) FROM ledger.audit_entry")).scalar_one()
    for entry in audit.stream(tx):
        tally.checked += 1
        where = f"audit entry {entry.id}"
        try:
            holds = entry.computed_leaf() == entry.leaf
        except (TypeError, OverflowError, struct.error):  # what could never have been recorded
            holds = False
        if not holds:
            tally.lie(where, "its fields do not hash to its leaf")
        elif not entry.values_hold:
            tally.lie(where, "its sealed values are not those that were recorded")
        if not tally.checked % 10_000:
            progress(tally.name, tally.checked, total)
    return tally.verdict()


@dataclass(frozen=True, slots=True)
class _Placed:
    """One transaction (or audit entry) as the seals' trees take it."""

    era: int
    xid: int
    entry: bytes
    postings: int


def _journal(tx: Tx) -> Iterator[_Placed]:
    """The whole journal in its order."""
    eras = tx.execute(text("SELECT DISTINCT era FROM ledger.transaction ORDER BY era")).scalars().all()
    for era in eras:
        for xid, leaf, postings in journal_entries(tx, era, 0, None):
            yield _Placed(era, xid, entry_hash(era, xid, leaf), postings)


def _log(tx: Tx) -> Iterator[_Placed]:
    """The whole audit log in its order."""
    eras = tx.execute(text("SELECT DISTINCT era FROM ledger.audit_entry ORDER BY era")).scalars().all()
    for era in eras:
        for xid, leaf in audit_leaves(tx, era, 0, None):
            yield _Placed(era, xid, entry_hash(era, xid, leaf), 0)


class _Cursor:
    """Walks one of the two orders, seal by seal."""

    def __init__(self, placed: Iterator[_Placed], name: str) -> None:
        self._placed = placed
        self._name = name
        self._next = next(placed, None)
        self.done = 0

    def covered(self, seal: Seal, ranges: Tally) -> tuple[Tree, int]:
        """The tree over what lies in a seal's range, and its postings; what lies before it is in no seal: a lie."""
        tree, postings = Tree(), 0
        while self._next is not None and (self._next.era, self._next.xid) < (seal.era, seal.to_xid):
            one = self._next
            if (one.era, one.xid) < (seal.era, seal.from_xid):
                ranges.lie(
                    f"{self._name} id {one.xid} of era {one.era}",
                    f"lies before seal {seal.number} and in none",
                )
            else:
                tree.append(one.entry)
                postings += one.postings
            self._step()
        return tree, postings

    def rest(self) -> int:
        """How many are left: no seal covers them."""
        before = self.done
        while self._next is not None:
            self._step()
        return self.done - before

    def _step(self) -> None:
        self.done += 1
        self._next = next(self._placed, None)


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
        self.logged = Tally("seals cover the audit log")

    @property
    def all(self) -> tuple[Tally, ...]:
        return self.chain, self.signatures, self.ranges, self.roots, self.logged

    def verdicts(self) -> list[Check]:
        return [tally.verdict() for tally in self.all]


def _replay_seals(tx: Tx, progress: Progress, transactions: int) -> tuple[list[Check], int, int]:
    """The chain beside the journal and the log, all in order; and how many of each wait for their seal."""
    tallies = _SealTallies()
    keys = public_keys(tx)
    journal, log = _Cursor(_journal(tx), "transaction"), _Cursor(_log(tx), "audit entry's transaction")
    last: Seal | None = None
    for seal in _chain(tx):
        _check_link(tallies, seal, last, keys)
        _check_cover(tallies.roots, seal, *journal.covered(seal, tallies.ranges))
        tree, _ = log.covered(seal, tallies.ranges)
        _check_log(tallies.logged, seal, last, tree)
        last = seal
        progress(tallies.roots.name, journal.done, transactions)
    return tallies.verdicts(), journal.rest(), log.rest()


def _check_link(tallies: _SealTallies, seal: Seal, last: Seal | None, keys: dict[str, bytes]) -> None:
    where = f"seal {seal.number}"
    for tally in tallies.all:
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


def _check_log(tally: Tally, seal: Seal, last: Seal | None, tree: Tree) -> None:
    where = f"seal {seal.number}, transaction ids {seal.from_xid} to {seal.to_xid} of era {seal.era}"
    if seal.audited is None:
        if tree.size:
            tally.lie(where, f"was made before there was a log, and {tree.size} entries lie in it")
        if last is not None and last.audited is not None:
            tally.lie(where, "does not cover the log, as the seal before it does")
        return
    root, entries, total = seal.audited
    if total != entries + ((last.total_audit_entries or 0) if last is not None else 0):
        tally.lie(where, "its running total of audit entries does not follow")
    if tree.size != entries:
        tally.lie(where, f"sealed {entries} audit entries, there are {tree.size}")
    elif tree.root() != root:
        tally.lie(where, "one of its audit entries was changed, moved or exchanged")


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
