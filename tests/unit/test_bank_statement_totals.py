"""Control totals: what a bank says of its entries as a whole, beside the balances."""

from tests.unit import test_bank_statement_camt053 as camt053
from tests.unit import test_bank_statement_mt940 as mt940
from tests.unit.bank_statement_writers import DAY, camt_balance, camt_document, camt_head, statement_in


def test_those_of_camt_053_are_compared_in_every_way_that_banks_count() -> None:
    def totals(*said: tuple[str, int, str], page: str = "", rest: str = "") -> str:
        summary = "".join(
            f"<Ttl{of}Ntries><NbOfNtries>{number}</NbOfNtries><Sum>{total}</Sum></Ttl{of}Ntries>"
            for of, number, total in said
        )
        balances = camt_balance("OPBD", 0, "EUR", DAY) + camt_balance("CLBD", 10_00, "EUR", DAY)
        entries = camt053.entry(20_00) + camt053.entry(-10_00) + rest
        return camt_document(
            f"<Stmt>{camt_head(camt053.ONE)}{page}{balances}<TxsSummry>{summary}</TxsSummry>{entries}</Stmt>"
        )

    pending = camt053.entry(7, status="PDNG")
    taken_back = camt053.entry(5_00) + camt053.entry(
        5_00, more=f"<RvslInd>true</RvslInd><BookgDt><Dt>{DAY}</Dt></BookgDt>"
    )
    for good in (
        totals(("", 2, "30.00"), ("Cdt", 1, "20"), ("Dbt", 1, "10.00")),
        totals(("", 2, "10.00")),
        totals(("", 3, "30.07"), ("Cdt", 2, "20.07"), rest=pending),
        totals(("Cdt", 1, "20.00"), rest=pending),
        totals(("Cdt", 3, "30.00"), ("Dbt", 1, "10.00"), rest=taken_back),
        totals(("Cdt", 2, "25.00"), ("Dbt", 2, "15.00"), rest=taken_back),
        totals(("", 9, "99.00"), page="<StmtPgntn><PgNb>1</PgNb><LastPgInd>false</LastPgInd></StmtPgntn>"),
    ):
        assert sum(statement_in(good).amounts) == 10_00
    assert (
        "say 3 entries of 30.00 EUR, and what was read is 2 entries of 30.00 EUR: a difference of 1 entry."
        in camt053.refused(totals(("", 3, "30.00")))
    )
    assert "a difference of -1.00 EUR" in camt053.refused(totals(("", 2, "30.00"), ("Dbt", 1, "9.00")))
    assert "Statement 1, control totals: the amount can't be read" in camt053.refused(
        totals(("", 2, "1,2,3"))
    )


def test_those_of_mt940_are_compared_where_a_bank_gives_them() -> None:
    entries = ":61:260302C3,NTRFNONREF\n:61:260302RC2,NTRFNONREF\n:61:260302D0,NTRFNONREF"
    for good in (
        ":90D:1EUR0,\n:90C:2EUR5,",
        ":90D:2EUR2,00\n:90C:1EUR3,",
        ":90C:many",
        ":90C:7USD9,",
    ):
        assert statement_in(mt940.message(f"{entries}\n{good}")).amounts == [300, -200]
        assert statement_in(mt940.message(entries).removesuffix("-\n") + f"{good}\n-\n").amounts == [
            300,
            -200,
        ]
    said = mt940.refused(mt940.message(f"{entries}\n:90C:3EUR5,00"))
    assert (
        "say 3 credits of 5.00 EUR, and what was read is 2 credits of 5.00 EUR: a difference of 1 credit."
        in said
    )
