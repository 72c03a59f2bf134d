"""MT940 as banks send it: envelopes, dialects, pages, dates without years, and what is refused."""

from datetime import UTC, date, datetime

import pytest

from integrations.bank_statements.canonical import InvalidStatement, UnknownFormat
from tests.unit.bank_statement_writers import (
    IBAN,
    OTHER_IBAN,
    TODAY,
    Detail,
    Entry,
    Statement,
    mt940,
    statement_in,
    statements_in,
)

HEAD = f":20:STARTUMS\n:25:{IBAN}\n:28C:41/1\n"


def message(
    body: str, *, opening: str = ":60F:C260301EUR0,", closing: str = ":62F:C260302EUR1,", head: str = HEAD
) -> str:
    return f"{head}{opening}\n{body}\n{closing}\n-\n"


def refused(content: str | bytes) -> str:
    with pytest.raises(InvalidStatement) as told:
        statements_in(content)
    return told.value.detail


def test_a_plain_message_and_one_in_swifts_envelope_say_the_same() -> None:
    plain = message(
        ":13D:2603021730+0200\n:61:2603020302C1,00NTRFOUR-REF//BANK-REF\nmore\n:86:Rent for March"
    )
    swift = (
        "{1:F01BANKBEBBAXXX0000000000}{2:O9401200260302BANKBEBBAXXX00000000002603021200N}{3:{108:X}}{4:\r\n"
        + plain.removesuffix("-\n").replace("\n", "\r\n")
        + "-}{5:{CHK:123}}"
    )
    joined = swift + swift  # the next message begins on the line that ends this one
    dialect = "ABCDNL2A\n940\nABCDNL2A\n" + plain
    reads = [*statements_in(plain), *statements_in(swift), *statements_in(joined), *statements_in(dialect)]
    assert len(reads) == 5
    for found in reads:
        head, (line,) = found.head, found.lines
        assert (head.account, head.currency, head.identification, head.number) == (
            IBAN,
            "EUR",
            "STARTUMS",
            "41",
        )
        assert (head.from_on, head.to_on, head.opening) == (date(2026, 3, 2), date(2026, 3, 2), 0)
        assert head.created == datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
        assert (line.amount, line.kind, line.end_to_end, line.reference) == (
            100,
            "NTRF",
            "OUR-REF",
            "BANK-REF",
        )
        assert line.text == "Rent for March more"


def test_without_entries_there_is_a_head_and_an_end() -> None:
    found = statement_in(
        message(":86:nothing today", closing=":62F:C260302EUR0,00\n:64:C260302EUR0,00\n:86:about nothing")
    )
    assert (found.lines, found.head.opening) == ([], 0)


def test_accounts_and_currencies_each_have_their_statement_even_after_one_field_20() -> None:
    file = [
        Statement((Entry((Detail(7),)),)),
        Statement((Entry((Detail(-9),)),), account=OTHER_IBAN, currency="JPY"),
    ]
    found = statements_in(mt940(file))
    assert [(one.head.account, one.head.currency, one.amounts) for one in found] == [
        (IBAN, "EUR", [7]),
        (OTHER_IBAN, "JPY", [-9]),
    ]
    second = f":25:{OTHER_IBAN}\n:60F:C260301USD5,\n:61:260302D5,NMSCNONREF\n:62F:C260302USD0,\n"
    third = ":60F:C260302USD0,\n:61:260303C4,NMSCNONREF\n:62F:C260303USD4,\n"
    found = statements_in(message(":61:260302C1,NTRFNONREF").replace("-\n", second + third))
    assert [(one.head.account, one.head.identification, one.amounts) for one in found] == [
        (IBAN, "STARTUMS", [100]),
        (OTHER_IBAN, "STARTUMS", [-500]),
        (OTHER_IBAN, "STARTUMS", [400]),
    ]


@pytest.mark.parametrize(
    ("written", "account"),
    [
        (f"{IBAN}EUR", IBAN),
        (f"BANKBEBB/{IBAN}", IBAN),
        ("GB82 WEST 1234 5698 7654 32", IBAN),
        (f"IBAN{IBAN}", IBAN),
        (f"{IBAN}\nBANKBEBB", IBAN),
        ("10020030/1234567", "10020030/1234567"),
        ("0012-34 ab", "0012-34AB"),
    ],
)
def test_accounts_are_named_as_the_bank_does_and_ibans_bare(written: str, account: str) -> None:
    assert statement_in(message("").replace(f":25:{IBAN}", f":25:{written}")).head.account == account


@pytest.mark.parametrize(
    ("mark", "amount", "reversal"),
    [
        ("C", 100, False),
        ("D", -100, False),
        ("RC", -100, True),
        ("RD", 100, True),
        ("CR", 100, False),
        ("rd", 100, True),
    ],
)
def test_marks_tell_the_sign_and_reversals_turn_it(mark: str, amount: int, reversal: bool) -> None:
    (line,) = statement_in(message(f":61:260302{mark}1,00NTRFNONREF")).lines
    assert (line.amount, line.reversal) == (amount, reversal)


@pytest.mark.parametrize(
    ("value", "entry", "booked", "valued"),
    [
        ("251231", "0102", date(2026, 1, 2), date(2025, 12, 31)),
        ("260102", "1231", date(2025, 12, 31), date(2026, 1, 2)),
        ("260102", "0105", date(2026, 1, 5), date(2026, 1, 2)),
        ("240301", "0229", date(2024, 2, 29), date(2024, 3, 1)),
        ("260302", "", date(2026, 3, 2), date(2026, 3, 2)),
        ("260302", "    ", date(2026, 3, 2), date(2026, 3, 2)),
        ("991231", "1231", date(1999, 12, 31), date(1999, 12, 31)),
    ],
)
def test_entry_dates_have_the_year_that_brings_them_nearest(
    value: str, entry: str, booked: date, valued: date
) -> None:
    (line,) = statement_in(message(f":61:{value}{entry}C1,NTRFNONREF")).lines
    assert (line.booked_on, line.value_on) == (booked, valued)


@pytest.mark.parametrize(
    ("currency", "written", "amount"),
    [
        ("EUR", "1234,", 123_400),
        ("EUR", "1234", 123_400),
        ("EUR", "1.234,56", 123_456),
        ("EUR", "1234.56", 123_456),
        ("EUR", "1.234.567,8", 123_456_780),
        ("EUR", ",5", 50),
        ("EUR", "5,5000", 550),
        ("JPY", "1234,", 1_234),
        ("KWD", "1,234", 1_234),
        ("RWF", "15000,00", 15_000),
    ],
)
def test_amounts_are_read_however_they_are_written(currency: str, written: str, amount: int) -> None:
    content = message(
        f":61:260302C{written}NTRFNONREF",
        opening=f":60F:C260301{currency}{written}",
        closing=f":62F:D260302{currency}{written}",
    )
    found = statement_in(content)
    assert found.end is not None
    assert (found.head.opening, found.amounts, found.end.closing) == (amount, [amount], -amount)


@pytest.mark.parametrize("written", ["1,234", "1.234", "1,2,3", "1,005", "99999999999999999,"])
def test_amounts_that_are_none_or_have_too_many_decimals_are_refused(written: str) -> None:
    assert "Statement 1, entry 1 (line 5): the amount can't be read" in refused(
        message(f":61:260302C{written}NTRFNONREF")
    )


def test_structured_details_are_taken_apart_whatever_mark_the_bank_uses() -> None:
    for mark in "?~<^":
        details = (
            f"166?00CREDIT?20EREF+E2E-00000000000000000?2100123KREF+K-1MREF+M-1?22SVWZ+Rent for M?23arch?30BANKBEBB\n?31{OTHER_IBAN}?32Jo\nhn?33 Doe"
        ).replace("?", mark)
        (line,) = statement_in(message(f":61:260302C1,NTRFOWN//B\n:86:{details}")).lines
        assert (line.end_to_end, line.reference) == ("E2E-0000000000000000000123", "B")
        assert line.references == ("OWN", "K-1", "M-1")
        assert (line.counterparty, line.counterparty_account) == ("John Doe", OTHER_IBAN)
        assert line.text == "CREDIT Rent for March"


@pytest.mark.parametrize("text", ["?12 Main Street", "@12 Main Street @14", "12?34 what", "5 < 10"])
def test_text_that_only_begins_like_sub_fields_stays_text(text: str) -> None:
    (line,) = statement_in(message(f":61:260302C1,NTRFNONREF\n:86:{text}")).lines
    assert line.text == text


def test_sub_fields_may_have_no_business_code() -> None:
    (line,) = statement_in(message(":61:260302C1,NTRFNONREF\n:86:?20Rent?32John")).lines
    assert (line.text, line.counterparty) == ("Rent", "John")


def test_swifts_codes_are_taken_apart() -> None:
    details = f"/TRTP/SEPA/IBAN/{OTHER_IBAN}/BIC/ABNANL2A/NAME/John\nDoe/EREF/E2E-\n123/MARF/M-1/REMI/USTD//Rent/for March"
    (line,) = statement_in(message(f":61:260302C1,NTRFNONREF\n:86:{details}")).lines
    assert (line.end_to_end, line.references) == ("E2E-123", ("M-1",))
    assert (line.counterparty, line.counterparty_account) == ("John Doe", OTHER_IBAN)
    assert line.text == "Rent/for March SEPA"
    party = f"/EREF/notprovided//CNTP/{OTHER_IBAN}/ABNANL2A/John Doe///REMI/USTD//x"
    (line,) = statement_in(message(f":61:260302C1,NTRFNONREF\n:86:{party}")).lines
    assert (line.end_to_end, line.counterparty, line.counterparty_account) == (None, "John Doe", OTHER_IBAN)


def test_free_text_stays_whole_though_its_lines_look_like_fields() -> None:
    full = "x" * 65
    body = f":61:260302C1,NTRFNONREF\n:86:{full}\nyz\n:61:not an entry\n:15:neither\n\n  end"
    (line,) = statement_in(message(body)).lines
    assert line.text == f"{full}yz :61:not an entry :15:neither end"


@pytest.mark.parametrize(
    "reference", ["NONREF", "nonref", "NOTPROVIDED", "", "0000", "EREF", "MARF", "KREF+"]
)
def test_references_that_say_nothing_are_none(reference: str) -> None:
    (line,) = statement_in(message(f":61:260302C1,NTRF{reference}")).lines
    assert (line.end_to_end, line.reference, line.references) == (None, None, ())


@pytest.mark.parametrize(
    ("written", "number"), [("00041", "00041"), ("41/1", "41"), ("2026041", "2026041"), ("20261231/1", "20261231"), ("A-7", "A-7")]
)  # fmt: skip
def test_the_banks_running_number_is_whole(written: str, number: str) -> None:
    content = message(":61:260302C1,NTRFA", head=HEAD.replace("41/1", written))
    assert statement_in(content).head.number == number


def test_references_may_be_longer_than_the_standard_has_them() -> None:
    (line,) = statement_in(message(f":61:260302C1,NTRF{'A' * 40}//{'B' * 50}\nmore")).lines
    assert (line.end_to_end, line.reference) == ("A" * 40, "B" * 50)


def test_pages_are_joined_and_what_lies_between_them_is_checked() -> None:
    def page(sequence: int, opening: str, body: str, closing: str) -> str:
        return message(body, opening=opening, closing=closing, head=HEAD.replace("41/1", f"41/{sequence}"))

    first = page(1, ":60F:C260301EUR0,", ":61:260302C5,NTRFA", ":62M:C260302EUR5,")
    second = page(2, ":60M:C260302EUR5,", ":61:260302C7,NTRFB", ":62F:C260302EUR12,")
    found = statement_in(first + second)
    assert found.end is not None
    assert (found.head.number, found.head.opening, found.end.closing) == ("41", 0, 1200)
    assert [(line.entry, line.amount) for line in found.lines] == [(1, 500), (2, 700)]
    assert statement_in(second).head.number == "41/2"
    told = refused(first + second.replace(":60M:C260302EUR5,", ":60M:C260302EUR6,"))
    assert told.endswith(
        "a page opens with 6.00 EUR where the page before it closed with 5.00 EUR: a difference of 1.00 EUR."
    )
    other = second.replace("41/2", "42/1")
    assert [one.head.number for one in statements_in(first + other)] == ["41/1", "42/1"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "iso-8859-1", "windows-1252"]
)
def test_any_encoding_is_found(encoding: str) -> None:
    text = "Überweisung für März, Größe und Währung: Café Zoë, señor Núñez, garçon"
    (line,) = statement_in(message(f":61:260302C1,NTRFNONREF\n:86:{text}").encode(encoding)).lines
    assert line.text == text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            (":62F:C260302EUR1,\n-\n", ""),
            "Statement 1, entry 1: it has no closing balance (field 62F): it is cut off.",
        ),
        (
            (":62F:C260302EUR1,\n-\n", ":20:NEXT\n"),
            "Statement 1, entry 1 (line 6): it has no closing balance",
        ),
        ((":60F:C260301EUR0,\n", ""), "the entry stands outside of the balances"),
        (
            (":60F:C260301EUR0,\n:61:260302C1,NTRFNONREF\n", ""),
            "Statement 1 (line 4): it has no opening balance",
        ),
        ((":62F:C260302EUR1,", ":62F:C260302USD1,"), "it opens in EUR and closes in USD"),
        ((":62F:", ":60F:C260302EUR1,\n:62F:"), "second opening balance"),
        ((":62F:C260302EUR1,", ":62F:C261302EUR1,"), "field 62F is no balance"),
        ((":60F:C260301EUR0,", ":60F:C260301XYZ0,"), "field 60F is no balance"),
        ((":61:260302C", ":61:260230C"), "Statement 1, entry 1 (line 5): its date is none"),
        ((":61:260302C", ":61:2603029999C"), "its entry date is none"),
        ((":61:260302C1,", ":61:260302X1,"), "field 61 is no entry"),
        ((f":25:{IBAN}\n", ""), "it names no account"),
        (("STARTUMS", "A\x00B"), "NUL"),
        (("NONREF", "A" * 70_000), "characters"),
        (("NONREF", "A\n" * 2_000), "lines"),
    ],
)
def test_what_a_statement_cant_do_without_is_named(changed: tuple[str, str], why: str) -> None:
    assert why in refused(message(":61:260302C1,NTRFNONREF").replace(*changed, 1))


def test_other_messages_are_named_and_an_envelope_that_isnt_closed_is_cut_off() -> None:
    swift = mt940([Statement()])
    with pytest.raises(UnknownFormat, match="MT942"):
        statements_in(swift.replace("I940", "I942"))
    with pytest.raises(UnknownFormat, match="MT942 in line"):
        statements_in(swift + "\r\n" + swift.replace("I940", "I942"))
    assert "cut off" in refused(swift.removesuffix("-}"))
    assert statements_in(swift, today=TODAY)


def test_entries_of_no_money_are_counted_and_left_out() -> None:
    found = statement_in(message(":61:260302C0,00NMSCNONREF\n:61:260302C1,NTRFNONREF"))
    assert [(line.entry, line.amount) for line in found.lines] == [(2, 100)]
    assert found.end is not None
    assert found.end.skipped == 1
