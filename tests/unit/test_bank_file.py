"""Payment files as banks take them, whatever names and amounts are in them; and what no file may hold."""

import contextlib
import os
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest
import sepaxml  # type: ignore[import-untyped]  # only its schema files are used
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from pydantic import ValidationError

from integrations import strict_xml
from integrations.rails.bank_file import answers
from integrations.rails.bank_file.build import build, fitting, refusal, refusal_of
from integrations.rails.bank_file.days import execution_day
from integrations.rails.bank_file.options import BankFileOptions
from integrations.rails.bank_file.writing import ALLOWED, Unwritable, written
from ledger.ids import new_id, public_id
from ledger.money import AMOUNT_MAX, exponent
from products.payouts.rails import Instruction, RailPayee
from tests.conftest import FUZZ
from tests.integration.rails.bank import Bank

SCHEMA = Path(sepaxml.__file__).parent / "schemas" / "pain.001.001.09.xsd"
OPTIONS = BankFileOptions(
    debtor_name="Fonds d'épargne",
    debtor_account="DE89 3704 0044 0532 0130 00",
    debtor_bic="COBADEFFXXX",
    debtor_country="DE",
)
IBAN = {"iban": "DE89370400440532013000"}
ACCOUNT = {"account": "4002-133", "bank_code": "SBIN0001234", "country": "IN"}
MONDAY = date(2026, 3, 2)


@cache
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(file=os.fspath(SCHEMA))


def pay(
    name: str = "Uwimana Alice",
    *,
    amount: int = 1_500,
    currency: str = "RWF",
    destination: dict[str, str] = IBAN,
    attempt: UUID | None = None,
) -> Instruction:
    payee = RailPayee(name, "bank", destination)
    return Instruction(attempt or new_id(), public_id("pay", new_id()), amount, currency, payee)


def batch_at(at: datetime) -> UUID:
    """A batch that was made then."""
    return UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | 1)


names = st.one_of(
    st.text(max_size=200), st.text(st.sampled_from("<&>\"']]>\x00\x1b\u202eÅß·Жا中 /:-"), max_size=90)
)
destinations = st.one_of(
    st.just(IBAN),
    st.fixed_dictionaries(
        {
            "account": st.one_of(st.just("4002-133"), st.text(max_size=40)),
            "bank_code": st.one_of(st.sampled_from(["BKRWRWRW", "021000021"]), st.text(max_size=40)),
            "country": st.one_of(st.sampled_from(["IN", "US", "RW"]), st.text(max_size=3)),
        }
    ),
)
instructions = st.builds(
    pay,
    names,
    amount=st.integers(1, AMOUNT_MAX),
    currency=st.sampled_from(["RWF", "JPY", "PHP", "EUR", "KWD", "BHD", "TND"]),
    destination=destinations,
)


@settings(max_examples=100 * FUZZ, deadline=None)
@given(asked=st.lists(instructions, min_size=1, max_size=12), times=st.sampled_from([1, 1, 1, 1, 170]))
def test_whatever_is_asked_for_is_refused_by_name_or_is_a_valid_file_that_adds_up(
    asked: list[Instruction], times: int
) -> None:
    sound = [one for one in asked if refusal_of(OPTIONS, one) is None] or [pay()]
    sound = [replace(one, attempt=new_id()) for one in sound for _ in range(times)]
    sound = sound[: fitting(sound)][:2_000]
    batch = new_id()
    file = build(OPTIONS, batch, sound, MONDAY)
    schema().assertValid(etree.fromstring(file.content))
    assert build(OPTIONS, batch, sound, MONDAY) == file

    there = {order.end_to_end: order for order in Bank.given(file.content).orders}
    assert len(there) == len(sound) == len(file.lines)
    for one in sound:
        order = there[one.attempt.hex]
        assert (int(Decimal(order.amount).scaleb(exponent(one.currency))), order.currency) == (
            one.amount,
            one.currency,
        )
        assert "." not in order.amount or len(order.amount.split(".")[1]) == exponent(one.currency)
        assert set(order.creditor + order.remittance) <= ALLOWED
    assert file.control_sum == sum(Decimal(order.amount) for order in there.values())
    ids = re.findall(rb"<(?:MsgId|PmtInfId|InstrId|EndToEndId)>([^<]*)<", file.content)
    assert max(map(len, ids)) <= 35


def test_a_file_of_two_thousand_payments_passes_an_independent_validator() -> None:
    among = [pay(amount=number, currency="KWD", destination=ACCOUNT) for number in range(1, 2_001)]
    agreed = OPTIONS.model_copy(update={"service_level": "URGP", "category_purpose": "SSBE"})
    file = build(agreed, new_id(), among, MONDAY)
    xmlschema.XMLSchema(SCHEMA).validate(file.content.decode())
    bank = Bank.given(file.content)
    assert (bank.payments, Decimal(bank.control_sum)) == (2_000, Decimal("2001.000"))


@pytest.mark.parametrize(
    ("name", "as_written"),
    [
        ("Nguyễn Thị Ánh", "Nguyen Thi Anh"),
        ("Łukasz Groß-Ångström", "Lukasz Gross-Angstrom"),
        ("Ελένη Παπαδοπούλου", "Eleni Papadopoyloy"),
        ("Фарҳод Жўраев", "Farhod ZHuraev"),
        ("O’Brien & Sons; “x”", "O'Brien + Sons, 'x'"),
        ("Ａｌｉ \u200fÖz\x00", None),
        ("محمد", None),
        ("राम", None),
        (" \u200b ", None),
        ("---", None),
    ],
)
def test_a_name_is_written_in_the_banks_set_or_refused(name: str, as_written: str | None) -> None:
    if as_written is None:
        with pytest.raises(Unwritable):
            written(name, 70)
        assert refusal(OPTIONS, RailPayee(name, "bank", IBAN)) == "name_not_writable"
    else:
        assert written(name, 70) == as_written


@pytest.mark.parametrize(
    ("kind", "destination", "code"),
    [
        ("mobile_money", {"phone": "+250788000000"}, "payee_kind_not_served"),
        ("bank", {"iban": "DE00370400440532013000"}, "account_not_writable"),
        ("bank", ACCOUNT | {"account": "١٢٣"}, "account_not_writable"),
        ("bank", ACCOUNT | {"bank_code": "<x>"}, "bank_code_not_writable"),
        ("bank", ACCOUNT | {"country": "IND"}, "country_not_writable"),
        ("bank", ACCOUNT | {"country": "KP"}, "country_not_served"),
    ],
)
def test_who_can_not_be_paid_by_file_is_refused_by_a_code(
    kind: str, destination: dict[str, str], code: str
) -> None:
    agreed = OPTIONS.model_copy(update={"countries": ("IN", "DE")})
    assert refusal(agreed, RailPayee("Uwimana", kind, destination)) == code  # type: ignore[arg-type]  # each kind
    assert refusal(agreed, RailPayee("Uwimana", "bank", ACCOUNT)) is None


def test_a_file_is_for_the_banks_next_business_day() -> None:
    options = OPTIONS.model_copy(
        update={
            "time_zone": "Africa/Kigali",
            "holidays": ("RW",),
            "closed_on": (date(2026, 3, 9),),
        }
    )

    def day(text: str, asked_on: date = date(2026, 3, 1)) -> date:
        return execution_day(options, datetime.fromisoformat(text), asked_on)

    assert day("2026-03-02T12:59:59Z") == date(2026, 3, 2)  # 14:59:59 in Kigali
    assert day("2026-03-02T13:00:00Z") == date(2026, 3, 3)
    assert day("2026-03-06T13:00:00Z") == date(2026, 3, 10)  # a weekend, and a day that this bank is closed
    assert day("2026-04-06T20:00:00Z") == date(2026, 4, 8)  # 7 April is a public holiday in Rwanda
    assert day("2026-03-02T08:00:00Z", date(2026, 3, 4)) == date(2026, 3, 4)
    # in the file, by the instant that the batch's id holds
    file = build(options, batch_at(datetime(2026, 3, 6, 13, tzinfo=UTC)), [pay()], date(2026, 3, 6))
    assert Bank.given(file.content).execution_on == "2026-03-10"
    assert b"<CreDtTm>2026-03-06T13:00:00Z</CreDtTm>" in file.content


@pytest.mark.parametrize(
    "changed",
    [
        {"debtor_bic": "NOBIC"},
        {"debtor_bic": None},
        {"debtor_bank_code": "021000021"},
        {"time_zone": "Mars/Olympus"},
        {"holidays": ["XX"]},
        {"debtor_name": "基金"},
        {"payments_max": 2_001},
        {"colour": "blue"},
    ],
)
def test_options_that_no_file_can_be_made_with_are_refused(changed: dict[str, object]) -> None:
    given_ = OPTIONS.model_dump() | changed
    with pytest.raises(ValidationError):
        BankFileOptions.model_validate(given_)


HOSTILE = [
    b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
    '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'.encode(
        "utf-16"
    ),
    b"<a>" * 40 + b"</a>" * 40,
    b"<a>" * 100_000,
    b"<a>" + b"<b/>" * (strict_xml.ELEMENTS_MAX + 1) + b"</a>",
    b"<a>" + b" " * strict_xml.BYTES_MAX + b"</a>",
    b"<a><b></a>",
    b"\x00",
    b"",
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_xml_that_would_do_more_than_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(strict_xml.NotStrictXml) as refused:
        strict_xml.loads(body)
    assert "passwd" not in str(refused.value)


AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def a_bank(*amounts: int) -> Bank:
    return Bank.given(build(OPTIONS, new_id(), [pay(amount=one) for one in amounts], MONDAY).content)


@pytest.mark.parametrize("version", ["03", "10", "11", "12"])
def test_a_status_report_of_any_version_says_the_same(version: str) -> None:
    bank = a_bank(100, 200)
    first, second = (order.end_to_end for order in bank.orders)
    said = bank.says(AT, "PART", {first: "ACSC", second: "RJCT/AC04"}, version=version, note="Mr Secret")
    read = answers.read(said, "UTC")
    assert (read.kind, read.said_at, read.message and read.message.payments) == ("status", AT, 2)
    assert [
        (one.end_to_end, one.verdict.status, one.verdict.code, one.amount) for one in read.transactions
    ] == [
        (first, "ACSC", None, 100),
        (second, "RJCT", "AC04", 200),
    ]
    assert "Secret" not in repr(read)


def test_a_time_without_a_zone_is_the_banks() -> None:
    said = a_bank(1).says(AT, "ACCP").replace(b"+00:00", b"")
    assert answers.read(said, "Africa/Kigali").said_at == AT - timedelta(hours=2)


@pytest.mark.parametrize(
    ("group", "status"), [("RJCT", "ACSP"), ("ACSC", "RJCT/AC01"), ("ACTC", "CANC"), ("ACSP", "RJCT")]
)
def test_a_group_that_its_payments_contradict_is_refused(group: str, status: str) -> None:
    bank = a_bank(1, 2)
    for said in (
        bank.says(AT, group, {bank.orders[0].end_to_end: status}),
        bank.says(AT, None, {bank.orders[0].end_to_end: status}, parts={bank.orders[0].part: group}),
        bank.says(AT, group, parts={bank.orders[0].part: status.partition("/")[0]}),
    ):
        with pytest.raises(answers.UnreadableAnswer):
            answers.read(said, "UTC")


@settings(max_examples=150 * FUZZ, deadline=None)
@given(data=st.data())
def test_a_damaged_answer_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    bank = a_bank(100, 200)
    said = bytearray(bank.says(AT, "PART", {bank.orders[0].end_to_end: "RJCT/AM04"}))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(said) - 1))
        kind = data.draw(st.sampled_from(["cut", "put", "repeat"]))
        if kind == "cut":
            del said[at : at + data.draw(st.integers(1, 40))]
        elif kind == "put":
            said[at : at + 1] = data.draw(
                st.sampled_from([b"", b"<", b"&#0;", b"-", b"9" * 30, b"\xff", b"NaN"])
            )
        else:
            said[at:at] = said[at : at + 60]
        if not said:
            break
    with contextlib.suppress(answers.UnreadableAnswer):
        answers.read(bytes(said), "UTC")
