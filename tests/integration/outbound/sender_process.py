"""A process that expands and delivers until it is killed: ``python -m … URL SECONDS``, by a clock that is SECONDS ahead."""

import sys
import time
from datetime import UTC, datetime, timedelta

from ledger.database import Database
from tests.integration.outbound.told import Told


class Ahead:
    """The machine's clock, some seconds ahead: so that a test need not wait until a lease ends."""

    def __init__(self, seconds: float) -> None:
        self._by = timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The present instant, and a little more."""
        return datetime.now(UTC) + self._by


def main(url: str, seconds: str) -> None:
    """Run until killed."""
    told = Told(Database(url, application_name="sender"), Ahead(float(seconds)))
    deliverer = told.deliverer()
    while True:
        told.expand()
        deliverer.wake()
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
