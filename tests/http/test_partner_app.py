"""What a partner's engineer copies works: the pages' commands, the Python client, and a receipt verified without Mizan.

`TUTORIAL=write pytest tests/http/test_partner_app.py` writes the answers into the pages anew.
"""

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import tests
from tests.http.test_tutorial import ADDRESS, address
from tests.http.test_tutorial import project as project
from tests.http.tutorial import Shell, constant, follow, with_answers

DOCS = Path(tests.__file__).parents[1] / "docs"
PAGES = ("show-balances-in-your-app", "verify-a-receipt")
needs_programs = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None, reason="the pages need curl and openssl"
)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a reader who followed the pages has: what was shown, and the files."""

    shown: dict[str, Any]
    receipt: dict[str, Any]
    published: dict[str, Any]


@pytest.fixture
def followed(project: Path) -> Iterator[Followed]:
    """Both pages followed in one shell; each answer is the page's."""
    writing = os.environ.get("TUTORIAL") == "write"
    (project / "docs").symlink_to(DOCS)
    url = address(project)
    assert "Make an example" in httpx.get(f"{url}/app").text, (
        "the sandbox has the page that the pages speak of"
    )
    shell = Shell(project, instead={ADDRESS: url})
    try:
        for name in PAGES:
            path = DOCS / "how-to" / f"{name}.md"
            page = path.read_text(encoding="utf-8")
            answers = []
            for block, output, answer in follow(page, shell, writing=writing):
                if answer is None:
                    continue
                answers.append((answer, output.replace(url, ADDRESS)))
                if not writing:
                    assert constant(answers[-1][1]) == constant(answer.text), f"after\n{block.text}"
            assert answers
            if writing:
                path.write_text(with_answers(page, answers), encoding="utf-8")
        _, here = shell.run("pwd")
        folder = Path(here.strip())
        yield Followed(
            *(json.loads((folder / f"{one}.json").read_text()) for one in ("shown", "receipt", "seals"))
        )
    finally:
        shell.close()


@pytest.fixture(scope="module")
def verifier() -> ModuleType:
    """The stand-alone example, as a module."""
    spec = importlib.util.spec_from_file_location("verify_receipt", DOCS / "examples" / "verify_receipt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every single value in a JSON document."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def lied(value: Any) -> Any:
    """Another value of the same kind: what whoever changes a receipt would write."""
    if value is None:
        return "00000000-0000-7000-8000-000000000000"
    if isinstance(value, int):
        return value + 1
    if value.startswith(("20", "19")) and "-" in value:
        return value.replace("20", "21", 1)
    return value[:-1] + ("0" if value[-1] != "0" else "1")


@needs_programs
@pytest.mark.timeout(240)
def test_a_partner_shows_balances_and_a_receipt_that_proves_itself(
    followed: Followed, verifier: ModuleType
) -> None:
    assert set(followed.shown) == {"balances", "statement", "receipt"}
    (savings,) = followed.shown["balances"]["products"]
    assert savings["contributed"] == {"amount": 20_000, "currency": "RWF"}
    assert savings["match"]["entitled"] == {"amount": 18_000, "currency": "RWF"}

    verifier.verify(followed.receipt, followed.published)
    tried = 0
    for path in leaves(followed.receipt):
        forged = copy.deepcopy(followed.receipt)
        place: Any = forged
        for key in path[:-1]:
            place = place[key]
        if path == ("status",):
            continue  # says only whether there is a proof
        place[path[-1]] = lied(place[path[-1]])
        assert place[path[-1]] != followed.receipt, path
        with pytest.raises(verifier.NotProven):
            verifier.verify(forged, followed.published)
        tried += 1
    assert tried > 30

    for less in ("postings", "path"):
        forged = copy.deepcopy(followed.receipt)
        (forged if less == "postings" else forged["proof"])[less].append("00" * 32)
        with pytest.raises(verifier.NotProven):
            verifier.verify(forged, followed.published)
    for stranger in (
        followed.published | {"keys": {}},
        followed.published | {"keys": dict.fromkeys(followed.published["keys"], "00" * 32)},
        followed.published | {"seals": [followed.receipt["proof"]["seal"] | {"head": "00" * 32}]},
    ):
        with pytest.raises(verifier.NotProven):
            verifier.verify(followed.receipt, stranger)
    with pytest.raises(verifier.NotProven, match="not sealed yet"):
        verifier.verify(followed.receipt | {"proof": None}, followed.published)


def test_the_verifier_imports_nothing_of_mizan() -> None:
    source = DOCS / "examples" / "verify_receipt.py"
    blocked = "import sys; sys.modules.update(dict.fromkeys(['ledger', 'api', 'products', 'integrations']));"
    ran = subprocess.run(
        [sys.executable, "-c", f"{blocked} import runpy; runpy.run_path({str(source)!r})"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
