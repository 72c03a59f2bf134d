"""Seals: everything that has settled, in one chain, by one sealer at a time."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger.database import sqlstate
from ledger.seals import (
    GENESIS,
    Seal,
    SealError,
    SealingKey,
    heads,
    latest_heads,
    public_keys,
    read_heads,
    seal,
    write_heads,
)
from tests.integration.ledger_proof.conftest import Books


def stored_heads(books: Books) -> list[Seal]:
    with books.databases.auditor.begin() as tx:
        return heads(tx)


def test_nothing_posted_is_nothing_sealed(books: Books) -> None:
    assert books.seal() == []


def test_seals_chain_and_count_all_that_was_posted(books: Books) -> None:
    books.post(*[books.contribution(0, 100) for _ in range(3)])
    (first,) = books.seal()
    books.post(books.payment(books.bank, books.receivable, 1))
    (second,) = books.seal()
    assert books.seal() == []
    assert (first.number, first.previous, first.transactions, first.postings) == (1, GENESIS, 3, 6)
    assert (second.number, second.previous, second.transactions, second.postings) == (2, first.head, 1, 1)
    assert (second.total_transactions, second.total_postings) == (4, 7)
    assert second.from_xid == first.to_xid
    assert second.sealed_at == books.clock.now()
    assert stored_heads(books) == [first, second]
    with books.databases.auditor.begin() as tx:
        assert latest_heads(tx, limit=1) == [second]
        assert heads(tx, after=1) == [second]
    assert books.verify().unsealed == 0


def test_a_seal_takes_the_last_database_transaction_whole(books: Books) -> None:
    for size in (2, 3, 1):
        books.post(*[books.contribution(0, 100) for _ in range(size)])
    assert [one.transactions for one in books.seal(limit=3)] == [5, 1]
    assert books.verify().ok


def test_what_may_still_be_joined_by_a_late_commit_waits(books: Books) -> None:
    with books.databases.worker.begin() as late:
        late.exec_driver_sql("SELECT pg_current_xact_id()")
        books.post(books.contribution(0, 100))
        assert books.seal() == []
        assert books.verify().unsealed == 1
        books.post_in(late, [books.contribution(0, 100)])
    (both,) = books.seal()
    assert both.transactions == 2
    assert books.verify().ok


def test_of_many_sealers_at_once_one_wins_and_the_chain_never_forks(books: Books) -> None:
    for _ in range(20):
        books.post(*[books.contribution(0, 100) for _ in range(2)])
    start = Barrier(4)

    def sealer() -> int:
        start.wait()
        return len(books.seal(limit=2))

    with ThreadPoolExecutor(4) as pool:
        counts = [sealing.result() for sealing in [pool.submit(sealer) for _ in range(4)]]
    books.seal()
    assert sum(counts) <= 20
    assert sum(one.transactions for one in stored_heads(books)) == 40
    report = books.verify()
    assert report.ok, list(report.findings())
    assert report.unsealed == 0


def test_a_sealer_that_reads_an_old_snapshot_cannot_fork_the_chain(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.sealer.engine.connect() as stale:
        stale.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        stale.exec_driver_sql("SELECT 1 FROM ledger.seal")
        assert len(books.seal()) == 1
        with pytest.raises(DBAPIError) as refusal:
            seal(stale, books.key, books.clock)
        assert sqlstate(refusal.value) == "40001"
        stale.rollback()
    assert len(stored_heads(books)) == 1
    assert books.verify().ok


def test_the_database_holds_one_successor_for_a_head(books: Books) -> None:
    books.post(books.contribution(0, 100))
    books.seal()
    with books.databases.sealer.begin() as tx, pytest.raises(DBAPIError) as refusal:
        tx.execute(
            text(
                "INSERT INTO ledger.seal SELECT number + 1, previous, root, head, era, from_xid, to_xid, transactions,"
                " postings, total_transactions, total_postings, sealed_at, key_id, signature FROM ledger.seal"
            )
        )
    assert sqlstate(refusal.value) == "23505"


def test_keys_change_and_old_ones_stay(books: Books) -> None:
    books.post(books.contribution(0, 100))
    books.seal()
    old, books.key = books.key, SealingKey.generate()
    books.post(books.contribution(0, 100))
    books.seal()
    with books.databases.auditor.begin() as tx:
        assert public_keys(tx) == {key.key_id: key.public_key for key in (old, books.key)}
    assert [one.key_id for one in stored_heads(books)] == [old.key_id, books.key.key_id]
    assert books.verify().ok


def test_a_chain_that_does_not_hold_is_not_continued(books: Books) -> None:
    books.post(books.contribution(0, 100))
    books.seal()
    books.post(books.contribution(0, 100))
    assert books.tamper("UPDATE ledger.seal SET transactions = 5") == 1
    with pytest.raises(SealError, match="seal 1 does not hold"):
        books.seal()


def test_books_restored_into_another_cluster_seal_the_old_era_first(books: Books) -> None:
    books.post(books.contribution(0, 100))
    books.seal()
    books.post(books.contribution(0, 200))
    assert books.tamper("UPDATE ledger.era SET system_identifier = system_identifier - 1") == 1
    with books.databases.owner.begin() as tx:
        assert tx.execute(text("SELECT ledger.ensure_era()")).scalar_one() == 2
    new = books.post(books.contribution(0, 300), books.contribution(0, 400))
    # The new cluster counts its transactions from the beginning again.
    books.tamper("UPDATE ledger.transaction SET xid = '3' WHERE id = ANY(%(new)s)", new=new)
    second, third = books.seal()
    assert (second.era, second.transactions) == (1, 1)
    assert (third.era, third.from_xid, third.transactions) == (2, 0, 2)
    assert books.fold() == 8
    report = books.verify()
    assert report.ok, list(report.findings())
    assert report.unsealed == 0


def test_a_sealing_key_survives_its_pem_and_hides_itself() -> None:
    key = SealingKey.generate()
    again = SealingKey.from_pem(key.to_pem())
    assert (again.key_id, again.public_key) == (key.key_id, key.public_key)
    assert repr(key) == f"SealingKey({key.key_id})"


def test_what_is_no_ed25519_key_is_refused() -> None:
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SealError, match="not an Ed25519 key"):
        SealingKey.from_pem(other)
    with pytest.raises(SealError, match="not a readable PEM"):
        SealingKey.from_pem(b"garbage")
    with pytest.raises(SealError, match="not a readable PEM"):
        SealingKey.from_pem(SealingKey.generate().to_pem(), password=b"not encrypted")


def test_the_published_file_grows_by_what_is_new(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "heads.jsonl"

    def publish() -> int:
        with books.databases.sealer.begin() as tx:
            return write_heads(tx, file)

    assert publish() == 0
    books.post(books.contribution(0, 100))
    books.seal()
    assert publish() == 1
    assert publish() == 0
    for _ in range(3):
        books.post(books.contribution(0, 100))
        books.seal()
    assert publish() == 3
    assert list(read_heads(file)) == stored_heads(books)
    shown = json.loads(file.read_text().splitlines()[0])
    assert shown["previous"] == "00" * 32
    assert shown["sealed_at"] == "2026-03-02T09:30:00+00:00"


def test_a_line_torn_by_a_killed_writer_is_written_again(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "heads.jsonl"
    for _ in range(2):
        books.post(books.contribution(0, 100))
        books.seal()
    with books.databases.sealer.begin() as tx:
        write_heads(tx, file)
    whole = file.read_bytes()
    for torn in (1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:torn])
        assert len(list(read_heads(file))) == whole[:torn].count(b"\n")
        with books.databases.sealer.begin() as tx:
            write_heads(tx, file)
        assert file.read_bytes() == whole


def test_a_file_that_disagrees_is_not_appended_to(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "heads.jsonl"
    books.post(books.contribution(0, 100))
    books.seal()
    with books.databases.sealer.begin() as tx:
        write_heads(tx, file)
        published = file.read_text()
        file.write_text(published.replace('"postings":2', '"postings":3'))
        with pytest.raises(SealError, match="seal 1 was published otherwise"):
            write_heads(tx, file)
    for garbage in ("no json\n", "[]\n", '{"number": "1"}\n', '{"number": 1}\n'):
        file.write_text(garbage)
        with pytest.raises(SealError):
            list(read_heads(file))


def test_a_limit_outside_its_bounds_is_refused(books: Books) -> None:
    for limit in (0, 65_537):
        with books.databases.sealer.begin() as tx, pytest.raises(ValueError, match="limit"):
            seal(tx, books.key, books.clock, limit=limit)


def test_only_the_sealers_role_can_seal(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.api.begin() as tx:
        assert seal(tx, books.key, books.clock) is None  # row-level security shows it nothing to seal
    for database in (books.databases.worker, books.databases.auditor):
        with pytest.raises(DBAPIError) as refusal, database.begin() as tx:
            seal(tx, books.key, books.clock)
        assert sqlstate(refusal.value) == "42501"
    assert stored_heads(books) == []
