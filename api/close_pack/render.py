"""A close pack in each of its forms. The same document gives the same bytes: nothing here looks at a clock or the network.

The HTML stands alone: no script, and its style is in it. The PDF is made by typst from a template and the document as data, so
that nothing in the document is markup; its letters come from fonts within typst, and from the machine's for scripts they lack.
"""

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

import typst
from jinja2 import Environment, StrictUndefined

from api.cells import cell as csv_cell
from ledger.money import exponent
from products.closing.close import Format
from products.closing.document import digest
from products.closing.pack import Pack

MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
    "pdf": "application/pdf",
}
EMBEDDED_FONTS: Final = ("Libertinus Serif", "DejaVu Sans Mono")
"""Fonts that come with typst: Latin, Greek and Cyrillic, and with the second Arabic letters."""

_THIN: Final = "\u202f"
_MINUS: Final = "\u2212"
_NOTHING: Final = "\u2013"


def render(pack: Pack, *, public_url: str) -> dict[Format, bytes]:
    """The pack in every form; figures lead to ``public_url``."""
    spelled = pack.spelled
    shown = _shown(json.loads(spelled), digest(spelled).hex(), public_url)
    return {
        "json": spelled,
        "html": html(shown),
        "csv": _csv(shown),
        "pdf": pdf(shown),
    }


def html(shown: Mapping[str, Any]) -> bytes:
    """The page."""
    page: str = _page().render(pack=shown)
    return page.encode()


def pdf(shown: Mapping[str, Any]) -> bytes:
    """The document for paper, A4 across; tagged, so that it can be read aloud."""
    at = datetime.fromisoformat(shown["at"])
    made = typst.compile(
        files(__package__).joinpath("pack.typ").read_bytes(),
        sys_inputs={"pack": json.dumps(shown)},
        format="pdf",
        timestamp=int(at.timestamp()),
    )
    if not isinstance(made, bytes):
        raise TypeError("typst made no single document")
    return made


def money(amount: int, currency: str) -> str:
    """An amount as it is read: thin spaces between thousands, the currency's decimals, a true minus."""
    places = exponent(currency)
    whole, rest = divmod(abs(amount), 10**places)
    grouped = f"{whole:,}".replace(",", _THIN)
    return (_MINUS if amount < 0 else "") + grouped + (f".{rest:0{places}}" if places else "")


def _shown(document: Mapping[str, Any], digest_: str, public_url: str) -> dict[str, Any]:
    """The document with amounts written out and links made whole: what the templates are given."""
    base = public_url.rstrip("/")
    of = f"{base}/v1/periods/{quote(document['programme'])}/{document['month']}"
    revision = document["revision"]

    def link(cell: Mapping[str, Any]) -> str | None:
        if cell.get("figure"):
            at = "" if revision is None else f"?revision={revision}"
            return f"{of}/figures/{quote(cell['figure'], safe='')}/transactions{at}"
        return f"{base}{cell['link']}" if cell.get("link") else None

    def shown(
        cell: Any, currency: str | None, row: str
    ) -> dict[str, Any]:  # a cell as the document spells it
        if isinstance(cell, dict) and "amount" in cell:
            written = money(cell["amount"], currency) if currency else str(cell["amount"])
            return {
                **cell,
                # a total that is nothing says so
                "text": written if cell["amount"] or row == "total" else _NOTHING,
                "href": link(cell),
            }
        if isinstance(cell, dict):
            return {"text": cell["text"], "href": link(cell)}
        return {"text": "" if cell is None else str(cell), "href": None}

    sections = [
        {
            **section,
            "tables": [
                {
                    **table,
                    "rows": [
                        {
                            **row,
                            "cells": [shown(cell, table["currency"], row["kind"]) for cell in row["cells"]],
                        }
                        for row in table["rows"]
                    ],
                }
                for table in section["tables"]
            ],
        }
        for section in document["sections"]
    ]
    supersedes = document["supersedes"]
    return {
        **{name: document[name] for name in ("programme", "name", "month", "from", "through", "state")},
        **{name: document[name] for name in ("revision", "by", "remark", "at", "time_zone", "funds")},
        "told": _instant(document["at"]),
        "supersedes": supersedes and {**supersedes, "told": _instant(supersedes["reopened_at"])},
        "digest": digest_,
        "sections": sections,
        "checklist": [
            {"title": item["title"], "state": item["state"], "findings": len(item["findings"])}
            for item in document["checklist"]
        ],
    }


def _instant(at: str) -> str:
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


_COLUMNS: Final = (
    "section", "table", "row", "kind", "column", "text", "amount", "currency", "figure", "link", "accounts",
)  # fmt: skip


def _csv(shown: Mapping[str, Any]) -> bytes:
    """Every cell in a row of its own: amounts in minor units, the figure that lists its transactions, the accounts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    head = {name: shown[name] for name in ("programme", "name", "month", "from", "through", "state")}
    head |= {"revision": shown["revision"], "at": shown["at"], "by": shown["by"], "remark": shown["remark"]}
    head["digest"] = shown["digest"]
    if shown["supersedes"]:
        head |= {f"supersedes_{name}": value for name, value in shown["supersedes"].items() if name != "told"}
    for name, value in head.items():
        writer.writerow(["pack", "", "", "", name, csv_cell(value), "", "", "", "", ""])
    for section in shown["sections"]:
        for table in section["tables"]:
            for number, row in enumerate(table["rows"], start=1):
                _csv_row(writer, section["id"], table, number, row)
    return text.getvalue().encode()


def _csv_row(
    writer: Any, section: str, table: Mapping[str, Any], number: int, row: Mapping[str, Any]
) -> None:
    # the writer's type has no public name
    for column, cell in zip(table["columns"], row["cells"], strict=True):
        amount = cell.get("amount")
        if amount is None and not cell["text"]:
            continue
        writer.writerow(
            [
                section,
                csv_cell(table["id"]),
                number,
                row["kind"],
                column["label"],
                "" if amount is not None else csv_cell(cell["text"]),
                "" if amount is None else amount,
                table["currency"] or "" if amount is not None else "",
                csv_cell(cell.get("figure")),
                csv_cell(cell["href"]),
                " ".join(row["accounts"]) if amount is not None else "",
            ]
        )


@cache
def _page() -> Any:  # jinja2's template
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files(__package__).joinpath("pack.html").read_text("utf-8"))
