"""Waiting for what comes about by itself: how long it takes is a machine's business, and asserted nowhere."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS: Final = 60.0
"""After which it isn't slow but will never be."""


def eventually(question: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """The first answer to a question that counts as yes."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.01)
    return answer
