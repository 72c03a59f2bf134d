"""Work done by several at the same moment."""

import threading
from collections.abc import Callable


def at_once(*works: Callable[[], object]) -> None:
    """Run all at the same moment in threads of their own; what one raises is raised here."""
    barrier = threading.Barrier(len(works))
    raised: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        barrier.wait(60)
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    if raised:
        raise raised[0]
