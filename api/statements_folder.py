"""A folder in which banks' files arrive: each is brought in once, then lies in `done/`, or in `refused/` beside a `.reason`.

The folder may be on another machine's disk, written to by a bank's client. A file is taken when nobody has touched it for a while and
its name doesn't say that it is being written; that it stayed the same is seen again before the import commits. A kill at any point loses
and doubles nothing: a file is moved after its import has committed, and one that is met again is known by its content.

A file of an account's own format (CSV) lies in a folder of the account's name.
"""

import logging
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from sqlalchemy import text

from api import auditing, bank_statements
from api.bank_statements import Ask
from api.bootstrap import Services
from ledger.audit import Act
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, MizanError, NotFound

log = logging.getLogger("mizan.statements")

DONE: Final = "done"
REFUSED: Final = "refused"
REASON: Final = ".reason"
ACTOR: Final = "statements folder"
SETTLED_SECONDS: Final = 10.0
"""How long a file was touched by nobody before it counts as finished."""
UNFINISHED: Final = (".part", ".partial", ".tmp", ".filepart", ".crdownload", REASON)
"""How names end of files that are being written, or are ours."""
NAME_BYTES_MAX: Final = 200
"""Of the name of a file that was put away, so that there is room for a number and for the name of its reason."""
SUFFIX_CHARACTERS_MAX: Final = 10
"""What is longer behind a name's last point is no ending."""
SECONDS_MAX: Final = 15.0
"""How long one look goes on to further files; the next one takes them."""

_LOCK_CLASS: Final = 0x4D5D


class StillWritten(Exception):
    """The file changed while it was read; it is looked at again later."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the folder brought in, met again, and refused."""

    imported: int = 0
    known: int = 0
    refused: int = 0


def take(
    services: Services,
    folder: Path,
    *,
    settled_seconds: float = SETTLED_SECONDS,
    seconds_max: float = SECONDS_MAX,
) -> Look:
    """Bring in what has arrived, by name, as far as the time reaches. Several may look at once."""
    found = Look()
    if not folder.is_dir():
        log.warning("the statements' folder is not there: %s", folder)
        return found
    until = time.monotonic() + seconds_max
    for path, account in _finished(folder, settled_seconds):
        try:
            became = _take_one(services, folder, path, account)
        except OSError as error:  # it stays where it is; those behind it are taken
            log.warning("a bank's file can't be taken: %s (%s)", error.strerror, _shown(path))
            continue
        if became is not None:
            found = replace(found, **{became: getattr(found, became) + 1})
        if time.monotonic() > until:
            break
    return found


def _finished(folder: Path, settled_seconds: float) -> Iterator[tuple[Path, str | None]]:
    """Files that nobody writes any more, and the bank account whose folder they lie in."""
    places: list[tuple[Path, str | None]] = [(folder, None)]
    places += [
        (place, place.name)
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.is_symlink() and place.name not in (DONE, REFUSED)
    ]
    for place, account in places:
        try:
            inside = sorted(place.iterdir())
        except OSError as error:
            log.warning("a folder of statements can't be read: %s (%s)", error.strerror, _shown(place))
            continue
        for path in inside:
            if path.name.startswith(".") or path.name.lower().endswith(UNFINISHED):
                continue
            try:
                seen = path.lstat()
            except FileNotFoundError:
                continue  # another looked first
            if stat.S_ISREG(seen.st_mode) and time.time() - seen.st_ctime >= settled_seconds:
                yield path, account


def _take_one(services: Services, folder: Path, path: Path, account: str | None) -> str | None:
    """Bring in one file and put it away; which count of a `Look` it adds to, None when it is left for later."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(opened, "rb") as content:
        seen = _standing(content)
        try:
            duplicate = services.worker.run(lambda tx: _bring_in(tx, services, content, path, account, seen))
        except StillWritten:
            return None
        except (InvalidInput, NotFound, Conflict) as error:
            if _standing(content) != seen:
                return None
            _refuse(services, folder, path, content, error)
            return "refused"
    if duplicate is None:
        return None
    _put_away(path, folder / DONE)
    return "known" if duplicate else "imported"


def _bring_in(
    tx: Tx,
    services: Services,
    content: BinaryIO,
    path: Path,
    account: str | None,
    seen: tuple[int, int, int],
) -> bool | None:
    """Whether the file was here already; None: another process is at it."""
    mine = tx.execute(
        text("SELECT pg_try_advisory_xact_lock(:class, :file)"),
        {"class": _LOCK_CLASS, "file": crc32(os.fsencode(path)) - 2**31},
    ).scalar_one()
    if not mine:
        return None
    imported, digest = bank_statements.bring_in(
        tx, services, content, Ask(name=path.name, by=ACTOR, account=account)
    )
    if _standing(content) != seen:
        raise StillWritten
    if not imported.duplicate:
        detail = {"sha256": digest, "file": _shown(path), "lines": imported.lines}
        act = Act(ACTOR, "system", "bank_statement.imported", f"sha256:{digest}", "done", detail=detail)
        auditing.write(tx, services, act)
    return imported.duplicate


def _refuse(services: Services, folder: Path, path: Path, content: BinaryIO, error: MizanError) -> None:
    """Say why beside the file, then put it away, so that none lies there without its reason."""
    if not path.exists():
        return  # another process did
    seen = content.seek(0, os.SEEK_END)
    named = f"sha256:{bank_statements.digest_of(content)[0].hex()}" if seen else _shown(path)
    refused = Act(
        ACTOR,
        "system",
        "bank_statement.imported",
        named,
        "refused",
        detail={"code": error.code, "file": _shown(path)},
    )
    auditing.refused(services, refused)
    place = folder / REFUSED
    place.mkdir(exist_ok=True)
    to = _free(place, path.name)
    reason = to.with_name(to.name + REASON)
    draft = reason.with_name(f".{reason.name}.tmp")
    draft.write_text(f"{error.code}\n{error.detail}\n", encoding="utf-8")
    draft.replace(reason)
    _move(path, to)
    log.warning("a bank's file was refused: %s (%s)", error.code, _shown(path))


def _put_away(path: Path, place: Path) -> None:
    place.mkdir(exist_ok=True)
    _move(path, _free(place, path.name))


def _move(path: Path, to: Path) -> None:
    try:
        path.rename(to)
    except FileNotFoundError:
        log.info("a bank's file was put away by another process")


def _free(place: Path, name: str) -> Path:
    """A name in the folder that no file has; a file refused again after a kill finds its own reason there, and no file."""
    stem, suffix = Path(name).stem, Path(name).suffix
    if len(suffix) > SUFFIX_CHARACTERS_MAX:
        stem, suffix = name, ""
    while len(os.fsencode(stem + suffix)) > NAME_BYTES_MAX:
        stem = stem[:-1]
    to, number = place / f"{stem}{suffix}", 1
    while to.exists():
        number += 1
        to = place / f"{stem}-{number}{suffix}"
    return to


def _shown(path: Path) -> str:
    """A file's name as it can be written down: some are in no encoding."""
    return bank_statements.shown_name(path.name)


def _standing(content: BinaryIO) -> tuple[int, int, int]:
    seen = os.fstat(content.fileno())
    return seen.st_size, seen.st_mtime_ns, seen.st_ino
