"""A close pack in its forms: the same bytes each time, nothing of it taken for markup, in whatever script."""

import csv
import hashlib
import io
import json
from dataclasses import replace

import pypdf
import pytest

from api.close_pack import render
from api.close_pack.render import money
from products.closing import checklist, pack
from products.closing.findings import Explanation, Finding
from products.closing.pack import Pack
from products.closing.period import find
from tests.integration.closing.month import APRIL, MARCH, PROGRAMME, Month, nothing_valued

SPOKEN = {
    "Cyrillic": "Пенсионный фонд",
    "Greek": "Ταμείο",
    "Arabic": "صندوق الادخار",
    "Latin with marks": "Ngân hàng Ţară ı ğ",
    "Devanagari": "सामाजिक सुरक्षा",
    "Amharic": "ማህበራዊ",
    "Chinese": "储蓄基金",
}
MARKUP = '#strong[x] <script>alert(1)</script> "&amp; $a^2$ =HYPERLINK("x") \\ `code` *b*'


def made(month: Month, name: str) -> Pack:
    """A preview of the pack of a programme of this name, with an explanation that says it too."""
    with month.world.databases.worker.begin() as tx:
        period = replace(find(tx, PROGRAMME, MARCH), name=name)
        judged = checklist.judge(tx, period, month.world.clock, nothing_valued)
        said = Explanation(f"={name}", "opr_x", APRIL)
        finding = Finding("x", name, 1_234_567, "RWF", 2, explanation=said)
        items = tuple(
            replace(item, findings=(finding,)) if item.name == "suspense" else item for item in judged.items
        )
        return pack.make(tx, period, replace(judged, items=items), None)


def test_the_forms_of_a_pack_are_made_from_its_figures_byte_by_byte_the_same(month: Month) -> None:
    month.bank_ties()
    preview = month.pack()
    once, again = (render(preview, public_url="https://mizan.example/") for _ in range(2))
    assert once == again
    digest = hashlib.sha256(once["json"]).hexdigest()
    document = json.loads(once["json"])
    assert (document["state"], document["programme"], document["month"]) == ("preview", PROGRAMME, "2026-03")

    page = once["html"].decode()
    assert "PREVIEW" in page
    assert digest in page
    assert "1\u202f500\u202f000" in page
    href = "https://mizan.example/v1/periods/ejoheza/2026-03/figures/trial_balance.savers.RWF.bank.opening_debit/transactions"
    assert f'<a href="{href}">1\u202f500\u202f000</a>' in page

    sheets = pypdf.PdfReader(io.BytesIO(once["pdf"]))
    text = "\n".join(sheet.extract_text() for sheet in sheets.pages)
    assert "PREVIEW" in text
    assert digest in text.replace("\n", "")
    assert "Bank reconciliation statement" in text
    assert f"1 / {len(sheets.pages)}" in text

    rows = list(csv.DictReader(io.StringIO(once["csv"].decode())))
    assert {row["currency"] for row in rows if row["amount"]} == {"RWF"}
    [opening] = [row for row in rows if row["figure"] == "trial_balance.savers.RWF.bank.opening_debit"]
    assert (opening["amount"], opening["link"]) == ("1500000", href)
    assert opening["accounts"].startswith("acc_")
    [said] = [row for row in rows if row["section"] == "pack" and row["column"] == "digest"]
    assert said["text"] == digest


@pytest.mark.parametrize("name", [MARKUP, " · ".join(SPOKEN.values())], ids=["markup", "scripts"])
def test_what_people_write_is_shown_as_they_wrote_it(month: Month, name: str) -> None:
    files = render(made(month, name), public_url="https://mizan.example")
    page = files["html"].decode()
    assert "<script>" not in page
    if name is not MARKUP:
        assert name in page
    rows = [row for row in csv.reader(io.StringIO(files["csv"].decode())) if f"'={name}" in row]
    assert rows, "what begins as a formula is no formula"
    text = "\n".join(sheet.extract_text() for sheet in pypdf.PdfReader(io.BytesIO(files["pdf"])).pages)
    if name is MARKUP:
        assert "#strong[x] <script>alert(1)</script>" in text
        assert "*b*" in text
    else:
        assert SPOKEN["Cyrillic"] in text
        assert SPOKEN["Greek"] in text


def test_amounts_are_written_with_the_currencys_decimals() -> None:
    assert money(1_234_567, "RWF") == "1\u202f234\u202f567"
    assert money(-1_234_567, "PHP") == "\u221212\u202f345.67"
    assert money(5, "KWD") == "0.005"
