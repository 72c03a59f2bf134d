"""camt.053 as banks send it: every version, every mess, and what is refused."""

from datetime import UTC, date, datetime

import pytest

from integrations.bank_statements.canonical import InvalidStatement, UnknownFormat
from tests.unit.bank_statement_writers import (
    DAY,
    IBAN,
    OTHER_IBAN,
    Detail,
    Entry,
    Statement,
    camt,
    camt_amount,
    camt_balance,
    camt_document,
    camt_head,
    side,
    statement_in,
    statements_in,
)

ONE = Statement()


def entry(
    amount: int, details: str = "", more: str = "", *, currency: str = "EUR", status: str = "BOOK"
) -> str:
    return (
        f"<Ntry>{camt_amount(amount, currency)}{side(amount)}{more or f'<BookgDt><Dt>{DAY}</Dt></BookgDt>'}<Sts>{status}</Sts>"
        + (f"<NtryDtls>{details}</NtryDtls>" if details else "")
        + "</Ntry>"
    )


def detail(worth: str = "", refs: str = "", more: str = "") -> str:
    return f"<TxDtls><Refs>{refs}</Refs>{worth}{more}</TxDtls>"


def document(
    entries: str, closing: int, *, opening: int = 0, balances: str | None = None, version: int = 2
) -> str:
    if balances is None:
        balances = camt_balance("OPBD", opening, "EUR", DAY) + camt_balance("CLBD", closing, "EUR", DAY)
    return camt_document(f"<Stmt>{camt_head(ONE)}{balances}{entries}</Stmt>", version)


def refused(content: str | bytes) -> str:
    with pytest.raises(InvalidStatement) as told:
        statements_in(content)
    return told.value.detail


@pytest.mark.parametrize("version", range(2, 14))
def test_every_version_says_the_same(version: int) -> None:
    found = statement_in(
        camt([Statement((Entry((Detail(6000, "E-1", "B-1", "Acme & Söhne", "for March"),)),), 100)], version)
    )
    assert (found.head.account, found.head.identification, found.head.number) == (IBAN, "S-1", "41")
    assert found.head.created == datetime(2026, 3, 3, tzinfo=UTC)
    (line,) = found.lines
    assert (line.entry, line.detail, line.amount, line.kind) == (1, 1, 6000, "PMNT/RCDT/ESCT")
    assert (line.end_to_end, line.reference, line.counterparty, line.text) == (
        "E-1",
        "B-1",
        "Acme & Söhne",
        "for March",
    )


@pytest.mark.parametrize(("version", "named"), [(1, "version 01"), (14, "version 14")])
def test_other_versions_are_not_read(version: int, named: str) -> None:
    with pytest.raises(UnknownFormat, match=named):
        statements_in(camt([ONE], version))


def test_prefixes_envelopes_and_missing_namespaces_change_nothing() -> None:
    content = document(entry(5), 5)
    body = content.partition("?>")[2]
    namespace = ' xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"'
    assert namespace in body
    prefixed = (
        body.replace("</", "</n:")
        .replace("<", "<n:")
        .replace("<n:/n:", "</n:")
        .replace(" xmlns=", " xmlns:n=")
    )
    for changed in (
        prefixed,
        body.replace(namespace, ""),
        f"\n\n<Envelope xmlns='urn:x'><Header><Id>7</Id></Header>{body}{body}</Envelope>",
    ):
        assert [one.amounts for one in statements_in(changed)] in ([[5]], [[5], [5]])


def test_a_statement_without_entries_has_a_head_and_an_end() -> None:
    found = statement_in(camt([Statement(opening=-700)]))
    assert (found.lines, found.head.opening) == ([], -700)
    assert found.end is not None
    assert (found.end.closing, found.end.lines, found.end.skipped) == (-700, 0, 0)


def test_each_account_and_each_currency_is_a_statement_of_its_own() -> None:
    several = [
        Statement((Entry((Detail(1),)),), account=IBAN),
        Statement((Entry((Detail(2),)),), account=IBAN, currency="USD"),
        Statement((Entry((Detail(3),)),), account=OTHER_IBAN),
    ]
    found = statements_in(camt(several))
    assert [(one.head.account, one.head.currency, one.amounts) for one in found] == [
        (IBAN, "EUR", [1]),
        (IBAN, "USD", [2]),
        (OTHER_IBAN, "EUR", [3]),
    ]
    # one statement that has balances in two currencies
    balances = "".join(
        camt_balance(code, amount, currency, DAY)
        for code, amount, currency in (
            ("OPBD", 10, "EUR"),
            ("CLBD", 15, "EUR"),
            ("OPBD", 0, "JPY"),
            ("CLBD", 7, "JPY"),
        )
    )
    found = statements_in(document(entry(5) + entry(7, currency="JPY"), 0, balances=balances))
    assert [(one.head.currency, one.head.opening, one.amounts) for one in found] == [
        ("EUR", 10, [5]),
        ("JPY", 0, [7]),
    ]
    assert "no balance in USD" in refused(document(entry(5) + entry(7, currency="USD"), 5))


def test_the_same_statement_twice_in_a_file_is_told_twice() -> None:
    """What is a duplicate is for the books to say, by what they hold already."""
    found = statements_in(camt([Statement((Entry((Detail(1),)),)), Statement((Entry((Detail(1),)),))]))
    assert [one.head.position for one in found] == [1, 2]
    assert found[0].lines == found[1].lines


def test_batch_entries_are_opened() -> None:
    batch = Entry((Detail(-100, "E-1"), Detail(-250, "E-2"), Detail(-50)))
    for version in (2, 8):
        found = statement_in(camt([Statement((batch,))], version))
        assert [(line.entry, line.detail, line.amount, line.end_to_end) for line in found.lines] == [
            (1, 1, -100, "E-1"),
            (1, 2, -250, "E-2"),
            (1, 3, -50, None),
        ]


def test_details_that_dont_add_up_are_refused_with_the_difference() -> None:
    worth = f"<AmtDtls><TxAmt>{camt_amount(100, 'EUR')}</TxAmt></AmtDtls>"
    told = refused(
        document(entry(5, detail(worth)) + entry(250, detail(worth) * 2), 255).replace("0.05<", "1.00<", 1)
    )
    assert told == (
        "Statement 1, entry 2: its details add up to 2.00 EUR and the entry is 2.50 EUR: a difference of 0.50 EUR."
    )
    assert "difference of -0.50 EUR" in refused(document(entry(50, detail(worth)), 50))


def test_details_without_amounts_are_one_line_with_all_references() -> None:
    details = "".join(
        detail(refs=f"<InstrId>I-{at}</InstrId><EndToEndId>E-{at}</EndToEndId>") for at in range(3)
    )
    batch = "<Btch><PmtInfId>P-1</PmtInfId><NbOfTxs>3</NbOfTxs></Btch>"
    (line,) = statement_in(document(entry(300, batch + details), 300)).lines
    assert (line.detail, line.amount, line.end_to_end) == (0, 300, None)
    assert set(line.references) == {"I-0", "I-1", "I-2", "E-0", "E-1", "E-2", "P-1"}
    # a batch that is not opened at all
    (line,) = statement_in(document(entry(300, batch), 300)).lines
    assert (line.detail, line.references) == (0, ("P-1",))


def test_what_was_exchanged_counts_as_the_entry_says() -> None:
    abroad = f"<AmtDtls><InstdAmt>{camt_amount(999, 'EUR')}</InstdAmt><TxAmt>{camt_amount(11000, 'USD')}</TxAmt></AmtDtls>"
    (line,) = statement_in(
        document(entry(10_000, detail(abroad, "<EndToEndId>E</EndToEndId>")), 10_000)
    ).lines
    assert (line.detail, line.amount, line.currency, line.end_to_end) == (1, 10_000, "EUR", "E")
    # two of them: nobody knows how the entry is divided
    (line,) = statement_in(document(entry(10_000, detail(abroad) * 2), 10_000)).lines
    assert (line.detail, line.amount) == (0, 10_000)
    # unless the bank says what each is worth in the account's currency
    counter = abroad.replace("</AmtDtls>", f"<CntrValAmt>{camt_amount(5_000, 'EUR')}</CntrValAmt></AmtDtls>")
    assert statement_in(document(entry(10_000, detail(counter) * 2), 10_000)).amounts == [5_000, 5_000]


def test_charges_that_were_taken_off_explain_a_difference() -> None:
    charged = (
        f"<AmtDtls><TxAmt>{camt_amount(100, 'EUR')}</TxAmt></AmtDtls>"
        f"<Chrgs><TtlChrgsAndTaxAmt Ccy='EUR'>0.03</TtlChrgsAndTaxAmt></Chrgs>"
    )
    assert statement_in(document(entry(194, detail(charged) * 2), 194)).amounts == [97, 97]


def test_charges_of_the_entry_as_a_whole_explain_a_difference() -> None:
    worth = f"<AmtDtls><TxAmt>{camt_amount(100, 'EUR')}</TxAmt></AmtDtls>"
    charges = "<Chrgs><Rcrd><Amt Ccy='EUR'>0.02</Amt></Rcrd><Rcrd><Amt Ccy='EUR'>0.01</Amt></Rcrd></Chrgs>"
    dated = f"<BookgDt><Dt>{DAY}</Dt></BookgDt>"
    (line,) = statement_in(document(entry(97, detail(worth), dated + charges), 97)).lines
    assert (line.detail, line.amount) == (1, 97)
    (line,) = statement_in(document(entry(-103, detail(worth), dated + charges), -103)).lines
    assert (line.detail, line.amount) == (1, -103)
    # nobody knows how they divide among several
    each = detail(worth, "<EndToEndId>E-1</EndToEndId>") + detail(worth, "<EndToEndId>E-2</EndToEndId>")
    (line,) = statement_in(document(entry(197, each, dated + charges), 197)).lines
    assert (line.detail, line.amount, line.references) == (0, 197, ("E-1", "E-2"))
    # they explain no other difference
    assert "a difference of -0.04 EUR" in refused(document(entry(96, detail(worth), dated + charges), 96))


@pytest.mark.parametrize(("closing", "amounts"), [(70, [100, -30]), (130, [100, 30])])
def test_a_reversal_turns_the_sign_unless_the_balances_say_that_it_is_turned_already(
    closing: int, amounts: list[int]
) -> None:
    turned = entry(30, more=f"<RvslInd>true</RvslInd><BookgDt><Dt>{DAY}</Dt></BookgDt>")
    found = statement_in(document(entry(100) + turned, closing))
    assert found.amounts == amounts
    assert [line.reversal for line in found.lines] == [False, True]
    not_turned = turned.replace("true", "false")
    assert statement_in(document(entry(100) + not_turned, 130)).amounts == [100, 30]


def test_the_other_side_is_never_the_account_itself() -> None:
    parties = (
        f"<RltdPties><Dbtr><Nm>Payer</Nm></Dbtr><DbtrAcct><Id><IBAN>{OTHER_IBAN}</IBAN></Id></DbtrAcct>"
        f"<Cdtr><Nm>Ourselves</Nm></Cdtr><CdtrAcct><Id><IBAN>{IBAN}</IBAN></Id></CdtrAcct></RltdPties>"
    )
    back = f"<RvslInd>true</RvslInd><BookgDt><Dt>{DAY}</Dt></BookgDt>"
    content = document(entry(5, detail(more=parties)) + entry(-5, detail(more=parties), more=back), 10)
    for line in statement_in(content).lines:
        assert (line.counterparty, line.counterparty_account) == ("Payer", OTHER_IBAN)
    (line,) = statement_in(document(entry(-5, detail(more=parties)), -5)).lines
    assert (line.counterparty, line.counterparty_account) == (None, None)


def test_only_what_is_booked_counts() -> None:
    entries = (
        entry(5)
        + entry(7, status="PDNG")
        + entry(9, status="INFO")
        + entry(0)
        + entry(3, status="<Cd>FUTR</Cd>")
    )
    found = statement_in(document(entries, 5))
    assert found.amounts == [5]
    assert found.end is not None
    assert found.end.skipped == 4
    # in whatever currency
    assert statement_in(document(entry(5) + entry(7, status="PDNG", currency="USD"), 5)).amounts == [5]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(
            (one, None)
            for one in ("NOTPROVIDED", "notprovided", "Not Provided", "NONREF", "", "  ", "0000", "-", "N/A")
        ),
        ("abc-12", "abc-12"),
        (" E-\n   1 ", "E-1"),
        ("RF18 5390", "RF18 5390"),
    ],
)
def test_references_are_what_they_say_or_none(written: str, read: str | None) -> None:
    (line,) = statement_in(document(entry(5, detail(refs=f"<EndToEndId>{written}</EndToEndId>")), 5)).lines
    assert (line.end_to_end, line.references) == (read, ())


@pytest.mark.parametrize(
    ("currency", "written", "amount"),
    [
        ("EUR", "1234.5", 123_450),
        ("EUR", "1234", 123_400),
        ("EUR", "1234.5000", 123_450),
        ("EUR", "1234,50", 123_450),
        ("EUR", "1.234,50", 123_450),
        ("EUR", "1,234,567.50", 123_456_750),
        ("EUR", "1 234.50", 123_450),
        ("EUR", ".50", 50),
        ("JPY", "1234", 1_234),
        ("RWF", "1234.00", 1_234),
        ("KWD", "1.234", 1_234),
        ("KWD", "1.2", 1_200),
    ],
)  # fmt: skip
def test_amounts_are_read_however_they_are_written(currency: str, written: str, amount: int) -> None:
    balances = camt_balance("OPBD", 0, currency, DAY) + camt_balance("CLBD", amount, currency, DAY)
    content = document(entry(7, currency=currency), 0, balances=balances)
    shown = camt_amount(7, currency)
    assert content.count(shown) == 1
    found = statement_in(content.replace(shown, f'<Amt Ccy="{currency}">{written}</Amt>'))
    assert found.amounts == [amount]


@pytest.mark.parametrize(
    ("currency", "written", "why"),
    [
        ("EUR", "1.234", "EUR has 2 decimals"),
        ("JPY", "1.5", "JPY has 0 decimals"),
        ("EUR", "1,234", "decimals or for thousands"),
        ("EUR", "12.34.56", "no amount"),
        ("EUR", "1e5", "no amount"),
        ("EUR", "-5", "no amount"),
        ("EUR", "", "there is no amount"),
        ("EUR", "99999999999999999", "larger than"),
        ("XXX", "5", "currency"),
    ],
)
def test_amounts_that_can_be_read_in_two_ways_or_none_are_refused(
    currency: str, written: str, why: str
) -> None:
    content = document(entry(5) + entry(7), 12).replace(
        camt_amount(7, "EUR"), f'<Amt Ccy="{currency}">{written}</Amt>'
    )
    assert refused(content).startswith("Statement 1, entry 2: ")
    assert why in refused(content)


def test_dates_that_are_missing_are_those_beside_them() -> None:
    times = (
        "<BookgDt><DtTm>2026-03-02T23:59:00-05:00</DtTm></BookgDt><ValDt><Dt>2026-03-05+01:00</Dt></ValDt>"
    )
    value_only, book_only = "<ValDt><Dt>2026-03-01</Dt></ValDt>", f"<BookgDt><Dt>{DAY}</Dt></BookgDt>"
    found = statement_in(
        document(entry(1, more=times) + entry(2, more=value_only) + entry(3, more=book_only), 6)
    )
    assert [(line.booked_on, line.value_on) for line in found.lines] == [
        (DAY, date(2026, 3, 5)),
        (date(2026, 3, 1), date(2026, 3, 1)),
        (DAY, DAY),
    ]
    assert refused(document(entry(1) + entry(2, more="<NtryRef>1</NtryRef>"), 3)) == (
        "Statement 1, entry 2: it has neither a booking date nor a value date."
    )


@pytest.mark.parametrize(
    ("balances", "days"),
    [
        # the opening balance bears the day of the closing one before it
        (
            (("OPBD", 0, date(2026, 3, 1)), ("CLBD", 5, date(2026, 3, 3))),
            (date(2026, 3, 2), date(2026, 3, 3)),
        ),
        ((("PRCD", 0, date(2026, 2, 28)), ("CLBD", 5, DAY)), (date(2026, 3, 1), DAY)),
        # or its own, where something was booked on it, or there is one day only
        ((("OPBD", 0, DAY), ("CLBD", 5, date(2026, 3, 3))), (DAY, date(2026, 3, 3))),
        ((("OPBD", 0, DAY), ("CLBD", 5, DAY)), (DAY, DAY)),
        # or none
        ((("OPBD", 0, None), ("CLBD", 5, None)), (DAY, DAY)),
    ],
)
def test_the_days_of_a_statement_that_names_none_are_those_of_its_balances(
    balances: tuple[tuple[str, int, date | None], ...], days: tuple[date, date]
) -> None:
    written = "".join(camt_balance(code, amount, "EUR", on) for code, amount, on in balances)
    content = document(entry(5), 5, balances=written)
    content = content[: content.index("<FrToDt>")] + content[content.index("</FrToDt>") + len("</FrToDt>") :]
    head = statement_in(content).head
    assert (head.from_on, head.to_on) == days


def test_a_period_that_ends_at_midnight_ends_the_day_before_unless_it_closes_then() -> None:
    content = document(entry(5), 5).replace(f"<ToDtTm>{DAY}T23:59:59", "<ToDtTm>2026-03-03T00:00:00")
    assert statement_in(content).head.to_on == DAY
    closing = camt_balance("OPBD", 0, "EUR", DAY) + camt_balance("CLBD", 5, "EUR", date(2026, 3, 3))
    content = document(entry(5), 5, balances=closing).replace(
        f"<ToDtTm>{DAY}T23:59:59", "<ToDtTm>2026-03-03T00:00:00"
    )
    assert statement_in(content).head.to_on == date(2026, 3, 3)


def test_balances_of_every_kind_are_told_apart() -> None:
    def ends(*balances: tuple[str, int]) -> tuple[int, int]:
        written = "".join(camt_balance(code, amount, "EUR", DAY) for code, amount in balances)
        found = statement_in(document("", 0, balances=written))
        assert found.end is not None
        return found.end.opening, found.end.closing

    assert ends(("CLAV", 9), ("OPBD", 1), ("FWAV", 8), ("CLBD", 2)) == (1, 2)
    assert ends(("CLBD", 2), ("PRCD", 1)) == (1, 2)
    assert ends(("ITBD", 3), ("CLBD", 2)) == (3, 2)
    assert ends(("OPBD", 1), ("ITBD", 4)) == (1, 4)
    assert ends(("ITBD", 3), ("ITBD", 4)) == (3, 4)
    worth = camt_balance("CLBD", 9, "USD", DAY)
    own = camt_balance("OPBD", 1, "EUR", DAY) + camt_balance("CLBD", 1, "EUR", DAY)
    assert statement_in(document("", 0, balances=worth + own)).head.currency == "EUR"
    half = camt_balance("OPBD", 1, "EUR", DAY)
    assert (
        refused(document("", 0, balances=worth + half))
        == "Statement 1: it has no booked closing balance in EUR."
    )
    assert "more than 1000 balances" in refused(document("", 0, balances=own * 501))
    for missing in ((("OPBD", 1),), (("CLBD", 1),), (("OPAV", 1), ("CLBD", 1)), ()):
        with pytest.raises(InvalidStatement, match="balance"):
            ends(*missing)


def test_pages_of_one_statement_are_joined() -> None:
    def page(number: int, balances: str, amount: int) -> str:
        pagination = f"<StmtPgntn><PgNb>{number}</PgNb><LastPgInd>false</LastPgInd></StmtPgntn>"
        return f"<Stmt>{camt_head(ONE)}{pagination}{balances}{entry(amount)}</Stmt>"

    def balance(code: str, amount: int) -> str:
        return camt_balance(code, amount, "EUR", DAY)

    first = page(1, balance("OPBD", 0) + balance("ITBD", 5), 5)
    second = page(2, balance("ITBD", 5) + balance("ITBD", 12), 7)
    third = page(3, balance("ITBD", 12) + balance("CLBD", 13), 1)
    found = statement_in(camt_document(first + second + third))
    assert found.end is not None
    assert (found.head.number, found.head.opening, found.end.closing) == ("41", 0, 13)
    assert [(line.entry, line.amount) for line in found.lines] == [(1, 5), (2, 7), (3, 1)]
    # a page is missing: two statements, and a gap between them that the books will find
    apart = statements_in(camt_document(first + third))
    assert [(one.head.number, one.head.opening) for one in apart] == [("41/1", 0), ("41/3", 12)]
    off = page(2, balance("ITBD", 6) + balance("CLBD", 13), 7)
    assert "a difference of 0.01 EUR" in refused(camt_document(first + off))


def test_pages_that_each_have_the_whole_statements_balances_are_joined() -> None:
    def page(number: int, entries: str, *, last: bool = False, head: str = camt_head(ONE)) -> str:
        pagination = f"<StmtPgntn><PgNb>{number}</PgNb><LastPgInd>{str(last).lower()}</LastPgInd></StmtPgntn>"
        balances = camt_balance("OPBD", 100, "EUR", DAY) + camt_balance("CLBD", 113, "EUR", DAY)
        return f"<Stmt>{head}{pagination}{balances}{entries}</Stmt>"

    taken_back = entry(-4).replace("<Sts>", "<RvslInd>true</RvslInd><Sts>")
    second = page(2, entry(7))
    third = page(3, taken_back + entry(5), last=True)
    found = statement_in(camt_document(page(1, entry(5)) + second + third))
    assert found.end is not None
    assert (found.head.number, found.head.opening, found.end.closing, found.end.lines) == ("41", 100, 113, 4)
    # the balances of the whole tell that the reversal has its own direction
    assert [(line.entry, line.amount) for line in found.lines] == [(1, 5), (2, 7), (3, -4), (4, 5)]
    other = page(2, entry(7), head=camt_head(ONE).replace(">41<", ">42<"))
    for apart in (
        page(1, entry(5)) + third,
        page(1, entry(5), last=True) + second,
        page(1, entry(5)) + other,
    ):
        assert len(statements_in(camt_document(apart))) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1", "iso-8859-15", "windows-1252"])
def test_xml_is_read_in_the_encoding_that_it_declares(encoding: str) -> None:
    content = camt([Statement((Entry((Detail(5, name="Žoë" if "15" in encoding else "Zoë"),)),))])
    declared = content.replace("UTF-8", encoding.removesuffix("-sig"))
    (line,) = statement_in(declared.encode(encoding)).lines
    assert line.counterparty in ("Žoë", "Zoë")
    if encoding == "windows-1252":
        assert "not in the encoding that it declares" in refused(content.encode(encoding))


def test_a_file_that_is_cut_off_is_refused_with_the_place() -> None:
    content = document(entry(5) + "\n" + entry(6), 11)
    cut = content[: content.rindex("<Sts>")]
    assert refused(cut) == "Statement 1, entry 2: the XML is not read: it is cut off at line 3, column 97."


NESTED = "<a>" * 40 + "</a>" * 40


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            ("<Document", '<!DOCTYPE Document [<!ENTITY x SYSTEM "file:///etc/passwd">]><Document'),
            "document type",
        ),
        (
            ("<Document", '<!DOCTYPE Document [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><Document'),
            "document type",
        ),
        (("<Document", '<!DOCTYPE Document SYSTEM "http://127.0.0.1:9/x.dtd"><Document'), "document type"),
        (("<Stmt>", f"<Stmt>{NESTED}"), "nested"),
        (("<Stmt>", f'<Stmt x="{"y" * 5_000}">'), "attribute"),
        (("<Stmt>", "<Stmt " + " ".join(f'x{at}="1"' for at in range(70)) + ">"), "attributes"),
        (("<Stmt>", f"<Stmt><Id>{'y' * 1_100_000}</Id>"), "characters of text"),
        (("<Stmt>", "<Stmt>" + "<Id>1</Id>" * 5_001), "values"),
        (("<Stmt>", "<Stmt>" + f"<Id>{'1' * 200_000}</Id>" * 2), "characters"),
        (("<Stmt>", "<Stmt>" + "".join(f"<x{at}/>" for at in range(2_100))), "different names"),
        (("<Stmt>", "<Stmt>" + "".join(f'<x a{at}="1"/>' for at in range(2_100))), "different names"),
        (
            ("<Stmt>", "<Stmt>" + "".join(f'<x xmlns:n{at}="urn:{at}"/>' for at in range(2_100))),
            "different names",
        ),
        (("<Id>", "<Id>&nbsp;"), "not well-formed"),
        (("<Id>", "<Id>\x00"), "not well-formed"),
        (("</Stmt>", "</Stmt>junk</Document><Document>"), "not well-formed"),
    ],
)
def test_xml_that_attacks_its_reader_is_refused(changed: tuple[str, str], why: str) -> None:
    assert why in refused(document(entry(5), 5).replace(*changed, 1))


def test_a_message_without_a_statement_is_refused() -> None:
    assert refused(camt_document("")) == "There is no statement in it."


def test_an_entry_has_only_so_many_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.bank_statements.camt053.DETAILS_MAX", 3)
    assert "more than 3 details" in refused(document(entry(5, detail() * 4), 5))


def test_what_names_no_account_or_no_days_is_refused() -> None:
    content = document(entry(5), 5)
    assert "it names no account" in refused(content.replace(IBAN, " "))
    assert "CRDT nor DBIT" in refused(content.replace("CRDT", "CREDIT"))
    other = content.replace(f"<IBAN>{IBAN}</IBAN>", "<Othr><Id> 001-22 abc </Id></Othr>")
    assert statement_in(other).head.account == "001-22ABC"
