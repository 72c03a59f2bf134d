"""Starting, finding and ending the servers' processes.

A process is recognised as ours by the mark of its home, which each carries in its command line (PostgreSQL as `cluster_name`,
Valkey as its title), so that orphans are found even when every pid file is gone or torn.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from api.embedded.places import CLEAN_ENVIRONMENT, Account

LOG_BYTES_MAX = 16 * 1024 * 1024
POLL_SECONDS = 0.02


def spawn(
    account: Account, arguments: Sequence[str | Path], *, cwd: Path, log: Path, stdin: bytes | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C on our terminal doesn't reach it before us."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    with os.fdopen(
        os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab"
    ) as output:
        process = subprocess.Popen(  # noqa: S603  our own programs, no shell
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(CLEAN_ENVIRONMENT),
            start_new_session=True,
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
    if stdin is not None and process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(stdin)
    return process


def living(account: Account, name: str, mark: str) -> list[psutil.Process]:
    """The processes of this account called `name` whose command line holds `mark`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.name() == name
                and process.uids().real == account.uid
                and process.status() != psutil.STATUS_ZOMBIE
                and any(mark in argument for argument in process.cmdline())
            ):
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], signals: Mapping[signal.Signals, float]) -> list[psutil.Process]:
    """Send each signal in turn to those still alive, waiting its seconds; answer who is left."""
    left = list(processes)
    for number, seconds in signals.items():
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        left = psutil.wait_procs(left, timeout=seconds)[1]
    return left


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a server's log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
