"""The general ledger as a file: DuckDB opens it, and it comes to what the trial balance says."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from api import books_export
from api.books_export import Format
from ledger.export import COLUMNS, Totals, Wanted
from ledger.trial_balance import trial_balance
from tests.integration.closing.month import Month


def written(month: Month, file: Path, form: Format, wanted: Wanted | None = None) -> Totals:
    """Export into a file."""
    totals = Totals()
    with month.world.databases.worker.read() as tx, file.open("wb") as into:
        into.writelines(books_export.write(tx, wanted or Wanted(), form, totals))
    return totals


def queried(query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers."""
    answer = duckdb.sql(query)
    assert answer is not None
    return answer.fetchall()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_duckdb_opens_the_ledger_and_finds_the_trial_balance(
    month: Month, tmp_path: Path, form: Format
) -> None:
    file = tmp_path / f"ledger.{form}"
    totals = written(month, file, form).to_json()
    opened = f"read_csv('{file}', comment='#')" if form == "csv" else f"'{file}'"
    assert tuple(name for name, *_ in queried(f"DESCRIBE SELECT * FROM {opened}")) == COLUMNS
    found = queried(
        f"""SELECT fund, code, currency, sum(debit) - sum(credit) FROM (
                SELECT fund, debit_code AS code, currency, amount AS debit, 0 AS credit FROM {opened}
                UNION ALL SELECT fund, credit_code, currency, 0, amount FROM {opened})
            GROUP BY ALL HAVING sum(debit) <> sum(credit)"""
    )
    with month.world.databases.worker.read() as tx:
        books = trial_balance(tx)
    assert {(fund, code, currency): int(net) for fund, code, currency, net in found} == {
        (one.fund, line.code, one.currency): line.debit - line.credit
        for one in books
        for line in one.accounts
        if line.debit != line.credit
    }
    count, amount = queried(f"SELECT count(*), sum(amount) FROM {opened}")[0]
    assert (totals["postings"], totals["amounts"]) == (count, {"RWF": int(amount)})
    if form == "csv":
        last = file.read_text().splitlines()[-1]
        told = json.loads(last.removeprefix("# "))
    else:
        metadata = pq.read_metadata(file).metadata or {}
        told = json.loads(metadata[b"mizan"])
    assert told == totals


def test_both_forms_have_the_same_digest_and_days_and_funds_are_chosen(month: Month, tmp_path: Path) -> None:
    whole = written(month, tmp_path / "a.csv", "csv").to_json()
    assert whole == written(month, tmp_path / "a.parquet", "parquet").to_json()
    early = Wanted(since=date(2026, 3, 1), through=date(2026, 3, 9), funds=month.period.fund_ids)
    some = written(month, tmp_path / "b.csv", "csv", early).to_json()
    assert 0 < some["postings"] < whole["postings"]
    assert written(month, tmp_path / "c.parquet", "parquet", Wanted(funds=[])).to_json()["postings"] == 0
    assert pq.read_table(tmp_path / "c.parquet").num_rows == 0
