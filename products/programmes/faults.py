"""What is wrong with a programme file, where, and the error that carries all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import InvalidInput

FAULTS_MAX = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: an RFC 6901 pointer into the file, what for, and the line where it is known."""

    pointer: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line is not None else ""
        return f"{self.pointer or '/'}{line}: {self.message}"


class InvalidProgramme(InvalidInput):
    """A programme file that can't be applied; ``faults`` lists everything that is wrong, in the file's order."""

    code = "invalid_programme"

    def __init__(self, faults: Sequence[Fault]) -> None:
        distinct = dict.fromkeys(faults)
        ordered = sorted(distinct, key=lambda fault: (fault.line or 0, fault.pointer))[:FAULTS_MAX]
        self.faults = tuple(ordered)
        more = f" and {len(distinct) - 1} more" if len(distinct) > 1 else ""
        super().__init__(f"{ordered[0]}{more}", pointer=ordered[0].pointer)
