"""What may stand in a log line, whoever wrote it; and the watch over the logs of all tests can fail."""

import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import structlog
from pydantic import BaseModel
from sqlalchemy import text

from api.observability import logs, redaction
from ledger.errors import MizanError
from tests import planted
from tests.conftest import Databases


class Line(logging.Handler):
    """Keeps the last line."""

    def __init__(self, *, people: bool = False) -> None:
        super().__init__()
        self.setFormatter(logs.formatter("test", people=people))
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Format as an own handler would."""
        self.text = self.format(record)


def written(logger: logging.Logger, *arguments: object, people: bool = False, **fields: object) -> str:
    """The line that a library's warning becomes."""
    line = Line(people=people)
    logger.addHandler(line)
    try:
        logger.warning(*arguments, **fields)  # type: ignore[arg-type]  # as libraries do
    finally:
        logger.removeHandler(line)
    return line.text


LIBRARY = logging.getLogger("some.library")


def test_a_field_is_written_when_its_name_and_its_kind_are_known() -> None:
    logs.use_structlog()
    line = Line()
    logging.getLogger("mizan.test").addHandler(line)
    structlog.get_logger("mizan.test").warning(
        "code_not_sent",
        channel="sms",
        count=3,
        delivery="dlv_06a1f0000000000000000000",
        until=datetime(2026, 3, 2, tzinfo=UTC),
        route="/v1/members/{id}",
        phone=planted.PHONE,  # no such field
        reason=f"no such number {planted.PHONE}",  # not a word
        partner=planted.FAMILY_NAME + " & Co",  # not an id
        error={"number": planted.DOCUMENT},
    )
    told = json.loads(line.text)
    assert told.pop("timestamp")
    assert told == {
        "event": "code_not_sent",
        "level": "warning",
        "logger": "mizan.test",
        "process": "test",
        "channel": "sms",
        "count": 3,
        "delivery": "dlv_06a1f0000000000000000000",
        "until": "2026-03-02 00:00:00+00:00",
        "route": "/v1/members/{id}",
        **dict.fromkeys(("phone", "reason", "partner", "error"), redaction.WITHHELD),
    }


@pytest.mark.parametrize(
    "secret",
    [
        planted.PHONE,
        "00971 50 123 45 67",
        planted.EMAIL,
        planted.IBAN,
        "DE89 3704 0044 0532 0130 00",
        planted.NATIONAL_ID,
        "Bearer abc.def",
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZW1fMSJ9.c2lnbmF0dXJl",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "mzn_test_k3J9sdfKJ2n3",
        "ZGVmYXVsdGtleWRlZmF1bHRrZXlkZWZhdWx0a2V5ZGU=",
        "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee",
    ],
)
def test_free_text_that_looks_like_a_person_or_a_secret_is_masked(secret: str) -> None:
    for line in (
        written(LIBRARY, f"sent to {secret}, failed"),
        written(LIBRARY, "sent to %s, failed", secret),
    ):
        said = json.loads(line)["event"]
        assert secret not in said
        assert re.sub(r"\W", "", secret)[-7:] not in re.sub(r"\W", "", said)
        assert said.startswith("sent to ")
        assert said.endswith(", failed")


def test_credentials_in_an_address_and_its_query_are_masked() -> None:
    line = written(LIBRARY, "GET %s", "https://u:pw@host.example/a?phone=1") + written(
        LIBRARY, "to redis://:hunter2@cache:6379/0 and https://host.example/members?name=x"
    )
    assert not any(one in line for one in ("pw@", "hunter2", "phone=1", "name=x"))
    assert "cache:6379/0" in line


def test_a_librarys_words_numbers_and_ids_stay() -> None:
    line = written(
        LIBRARY, "Task %(name)s[%(id)s] took %(s)f: %(exc)s", {
            "name": "mizan.seal", "id": "9d2cf1f5-7c5e-4b2f-8f6e-0f9f3f1c2a77", "s": 0.5, "exc": "ValueError('x')",
        },
    )  # fmt: skip
    assert json.loads(line)["event"] == (
        "Task mizan.seal[9d2cf1f5-7c5e-4b2f-8f6e-0f9f3f1c2a77] took 0.500000: <str>"
    )
    assert redaction.message("wrong arguments %d %d", ("x",)) == "wrong arguments %d %d"


class Sent(BaseModel):
    """What a request might hold."""

    phone: int


def failures(databases: Databases) -> list[Exception]:
    """Exceptions whose texts hold what was sent."""
    raised: list[Exception] = []
    statements = (
        f"select '{planted.FAMILY_NAME}'::int",
        f"insert into api.signing_key values ('{planted.DOCUMENT}', '{{}}', null, now(), null, now())",
    )
    for statement in statements:
        try:
            with databases.owner.begin() as tx:
                tx.execute(text(statement), {"phone": planted.PHONE})
        except Exception as error:  # each of them is what is wanted
            raised.append(error)
    try:
        Sent.model_validate({"phone": planted.EMAIL})
    except ValueError as error:
        raised.append(error)
    raised.append(MizanError(f"no member has {planted.PHONE}"))
    assert len(raised) == len(statements) + 2
    return raised


@pytest.mark.parametrize("people", [False, True])
def test_an_exception_is_its_type_its_codes_and_its_places(databases: Databases, people: bool) -> None:
    for error in failures(databases):
        assert planted.PERSONAL.search(str(error)), "the test must be able to fail"
        line = written(LIBRARY, "it failed: %s", error, people=people, exc_info=error)
        assert not planted.PERSONAL.search(line)
        assert type(error).__name__ in line
        if not people and isinstance(getattr(error, "orig", None), psycopg.Error):
            assert {"22P02", "23502"} & {one.get("sqlstate") for one in json.loads(line)["exception"]}
            assert "test_logs.py" in line


def test_the_watch_over_the_logs_of_all_tests_fails_the_run(tmp_path: Path) -> None:
    """A run in which a test logs past the pipeline, and one in which it logs through it."""

    def run(body: str) -> int:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "test_it.py").write_text(f"import logging\ndef test_it(): {body}\n", encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.log_watch", "-p", "no:cacheprovider", "-c", os.devnull,
             "--rootdir", str(folder), str(folder / "test_it.py")],
            check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2],
            env={**os.environ, "MIZAN_LOG_FILE": str(folder / "processes.jsonl")},
        )  # fmt: skip
        assert "1 passed" in done.stdout, done.stdout + done.stderr
        assert ("lines of the log hold" in done.stdout) == bool(done.returncode)
        return done.returncode

    raw = f"h = logging.FileHandler(logging.getLogger().handlers[0]._file.name); logging.getLogger('x').addHandler(h); logging.getLogger('x').warning('{planted.PHONE}')"
    assert run(f"logging.getLogger('x').warning('{planted.PHONE}')") == 0
    assert run(raw) == 1
