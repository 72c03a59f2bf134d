"""Processes that get SIGKILL after a step of their work: nothing of theirs is tidied up, and what they had not committed is gone."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, Final

import pytest

Step = str
"""What is done where: ``products.closing.pack:make``, ``ledger.database:Database.run``."""

JOIN_SECONDS_MAX: Final = 120


def die_after(step: Step, ending: signal.Signals = signal.SIGKILL) -> None:
    """Let this process end (or stop) as soon as the step is done for the first time; there is no way back from it."""
    path, _, name = step.replace(":", ".").rpartition(".")
    owner = resolve_name(path)
    does: Callable[..., Any] = getattr(owner, name)

    def does_and_dies(*args: Any, **kwargs: Any) -> Any:
        done = does(*args, **kwargs)
        os.kill(os.getpid(), ending)
        return done  # whoever was only stopped goes on

    pytest.MonkeyPatch().setattr(owner, name, does_and_dies)


def started(work: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    """A process of its own that does this work, which has to be a function of a module."""
    spawning = multiprocessing.get_context("forkserver")
    spawning.set_forkserver_preload([work.__module__])
    process = spawning.Process(target=work, args=args)
    process.start()
    return process


def expect_killed(work: Callable[..., None], *args: Any) -> None:
    """Do the work in a process of its own, which has to be killed amid it."""
    process = started(work, *args)
    process.join(JOIN_SECONDS_MAX)
    assert process.exitcode == -signal.SIGKILL, args
