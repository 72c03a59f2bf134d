"""A process that looks through a folder of statements whenever it is told to, each time in a child that may be killed."""

import os
import sys
import traceback
from pathlib import Path

from api.bootstrap import bootstrap
from api.settings import load
from api.statements_folder import take


def main(folder: str) -> None:
    """For each line of stdin: say the child's id, and how it ended."""
    settings = load(_env_file=None)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                take(bootstrap(settings), Path(folder), settled_seconds=0, seconds_max=3600)
            except BaseException:  # whatever it is, the child says so and ends here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
