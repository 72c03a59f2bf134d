"""The catalogue of problems: published, whole, and the same everywhere."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from api.problem_catalogue import CATALOGUE
from api.problems import add_problems, pointer, problem_page, reference, render
from ledger.posting import Outcome
from products.posting import BooksRefused

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "problems.md"


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text() == reference(), (
        "write it again: python -m api.problems > docs/reference/problems.md"
    )


def test_codes_are_stable_names_with_a_status_a_meaning_and_a_remedy() -> None:
    for code, kind in CATALOGUE.items():
        assert code == kind.code
        assert code.replace("_", "").isalpha()
        assert code.islower()
        assert 400 <= kind.status <= 503
        assert kind.title
        assert kind.meaning.endswith(".")
        assert kind.remedy.endswith(".")


def test_any_text_can_be_told() -> None:
    answer = render("not_found", "lone \ud800, NUL \x00, 💰, <b>", "req_1", errors=[{"detail": "\udfff"}])
    document = json.loads(bytes(answer.body))
    assert document["type"] == "/problems/not_found"
    assert document["status"] == answer.status_code == 404
    assert answer.media_type == "application/problem+json"


def test_a_fault_of_ours_is_told_as_an_internal_error_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    add_problems(app)

    @app.get("/")
    def books_that_refuse() -> None:
        raise BooksRefused(Outcome("rejected", None, reason="account_closed", account_id=UUID(int=7)))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mizan") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert str(UUID(int=7)) not in answer.text
    assert "books_refused" in caplog.text
    assert str(UUID(int=7)) in caplog.text


def test_pages_escape_what_they_show() -> None:
    page = bytes(problem_page("invalid_phone").body).decode()
    assert "<code>+971501234567</code>" in page


def test_pointers_are_written_as_rfc_6901_says() -> None:
    assert pointer(["a/b", "m~n", 0]) == "/a~1b/m~0n/0"
    assert pointer([]) == ""
