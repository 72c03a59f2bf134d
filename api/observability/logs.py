"""One log for everything that Mizan's processes say: structlog's lines and the standard library's alike.

Each line is one JSON object, or a line for people on a sandbox's terminal. What may stand in it is decided in
`api.observability.redaction`. An exception is written as its types, codes and places in the code, never with its text:
PostgreSQL's DETAIL, SQLAlchemy's parameters and pydantic's inputs are what people sent.

    log = structlog.get_logger()
    log.warning("code_not_sent", channel="sms", error=type(error).__name__)
"""

import logging
import sys
import threading
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from psycopg import Error as PostgresError
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict, WrappedLogger

from api.observability import redaction
from api.settings import Environment, LogFormat, LogLevel
from ledger.errors import MizanError

FRAMES_MAX: Final = 12
CAUSES_MAX: Final = 4
_META: Final = ("event", "level", "logger", "timestamp", "process", "exception")
_TALKATIVE: Final = ("sqlalchemy", "httpx", "httpcore", "kombu", "urllib3", "asyncio", "alembic", "stripe")
"""What these say below a warning is about every statement or request that they make."""


class LineHandler(logging.Handler):
    """Writes lines to a file, or to whatever is stderr at the time. A line that can't be written is dropped, not shown raw."""

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        stream = self._file or sys.stderr
        try:
            line = self.format(record)
        except Exception as error:  # whatever it is, the record must not be shown as it came
            line = f'{{"event": "log_line_lost", "level": "error", "error": "{type(error).__name__}"}}'
        with suppress(OSError, ValueError):  # nowhere left to say it
            stream.write(line + "\n")  # one write a line: processes share the file
            stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()


def configure(
    process: str,
    *,
    style: LogFormat = LogFormat.AUTO,
    level: LogLevel = LogLevel.WARNING,
    file: Path | None = None,
    environment: Environment | None = None,
    stderr: bool = True,
) -> None:
    """Send everything that this process logs through the one pipeline; `process` says which it is. May be called again."""
    handlers: list[logging.Handler] = []
    if stderr:
        handlers.append(LineHandler())
        handlers[-1].setFormatter(formatter(process, people=_for_people(style, environment)))
    if file is not None:
        handlers.append(file_handler(file, process))
    root = logging.getLogger()
    for there in [one for one in root.handlers if isinstance(one, LineHandler)]:
        root.removeHandler(there)
        there.close()
    for handler in handlers:
        root.addHandler(handler)
    least = logging.getLevelNamesMapping()[level.value.upper()]
    root.setLevel(least)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    use_structlog()


def use_structlog() -> None:
    """Hand structlog's lines to the standard library's handlers, as fields."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def file_handler(path: Path, process: str) -> logging.Handler:
    """A handler that appends JSON lines to a file, which only we may read; several processes may share it."""
    path.touch(mode=0o600)
    handler = LineHandler(path.open("a", encoding="utf-8"))
    handler.setFormatter(formatter(process, people=False))
    return handler


def formatter(process: str, *, people: bool) -> logging.Formatter:
    """What turns a record into a line."""

    def place(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event["level"] = record.levelname.lower()
        event["logger"] = record.name
        event["process"] = process
        return event

    rendered: list[Any] = (
        [_told_in_lines, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if people
        else [structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        processors=[place, _said, _raised, _allowed, *rendered],
        use_get_message=False,
        pass_foreign_args=True,
    )


def _said(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """The event's name, or a library's message."""
    arguments = event.pop("positional_args", None)
    if event["_from_structlog"]:
        event["event"] = redaction.masked(str(event.get("event", "")))
    else:
        event["event"] = redaction.message(event["_record"].msg, arguments)
    return event


def _raised(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """The exception, if there is one, without its text."""
    raised = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["exception"] = described(error)
    return event


def _allowed(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """Only what may be written."""
    record = event.pop("_record")
    event.pop("_from_structlog", None)
    shown: dict[str, Any] = {name: event[name] for name in _META if name in event}
    shown |= {name: redaction.field(name, value) for name, value in event.items() if name not in _META}
    shown["logger"] = redaction.masked(record.name)
    return shown


def _told_in_lines(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """The exception as people read one."""
    if "exception" in event:
        event["exception"] = "\n".join("\n    ".join([one["type"], *one["at"]]) for one in event["exception"])
    return event


def described(error: BaseException) -> list[dict[str, Any]]:
    """An exception and its causes: type, codes, and the places in the code that it came through."""
    told: list[dict[str, Any]] = []
    next_: BaseException | None = error
    while next_ is not None and len(told) < CAUSES_MAX:
        told.append(_described(next_))
        next_ = next_.__cause__ or (None if next_.__suppress_context__ else next_.__context__)
    return told


def _described(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"type": f"{type(error).__module__}.{type(error).__qualname__}"}
    if isinstance(error, MizanError):
        told["code"] = error.code
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, PostgresError):
        told["sqlstate"] = original.sqlstate
        told["constraint"] = original.diag.constraint_name
        told["table"] = original.diag.table_name
    if isinstance(error, OSError):
        told["errno"] = error.errno
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    told["at"] = [f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    return told


def _module(path: str) -> str:
    """The end of a file's path: enough to find it, and nothing about the machine."""
    return "/".join(Path(path).parts[-3:])


def _for_people(style: LogFormat, environment: Environment | None) -> bool:
    if style is LogFormat.AUTO:
        return environment is not Environment.PRODUCTION and sys.stderr.isatty()
    return style is LogFormat.CONSOLE


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("mizan").critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    if uncaught.exc_value is not None and not isinstance(uncaught.exc_value, SystemExit):
        logging.getLogger("mizan").critical(
            "uncaught_in_thread", exc_info=(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
        )
