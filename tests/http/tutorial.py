"""Runs a tutorial as its reader would: block by block in one shell, beside a `mizan serve` of its own.

A page's blocks: ``sh`` is run; ``python NAME`` is saved as the file NAME; ``json`` and ``text`` right after an ``sh`` block
are its answer; ``console`` is for the reader's other terminal and is not run.
"""

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOCK_SECONDS_MAX: Final = 60.0
SETTLED_SECONDS_MAX: Final = 30.0
"""How long a block that only reads is repeated until it shows what the page shows: workers take their time."""
_BLOCK: Final = re.compile(r"^```(sh|python|json|text|console)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
_MARK: Final = "-- the block has ended:"
_VARYING: Final = (
    (re.compile(r"\b([a-z]{3})_[0-9a-v]{26}\b"), r"\1_…"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "DATE"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its kind, the file that it is saved as, its text, and where the text lies in the page."""

    kind: str
    name: str | None
    text: str
    start: int
    end: int

    @property
    def only_reads(self) -> bool:
        """Whether it can be run again and again."""
        return self.text.startswith("api ") and " -d " not in self.text


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found[1], found[2], found[3], found.start(3), found.end(3)) for found in _BLOCK.finditer(page)
    ]


def constant(answer: str) -> str:
    """An answer without what differs from run to run: ids and times."""
    for pattern, instead in _VARYING:
        answer = pattern.sub(instead, answer)
    return answer.strip()


class Shell:
    """One bash, in which block after block is run; what `instead` holds stands for what the blocks say."""

    def __init__(self, folder: Path, instead: Mapping[str, str]) -> None:
        self._instead = instead
        self._folder = folder
        self._file = folder / "block.sh"
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(folder),
                "TMPDIR": str(folder),
                "LANG": "C.UTF-8",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, text: str) -> tuple[int, str]:
        """The exit code and the output of a block."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("bash has no pipes")
        for said, meant in self._instead.items():
            text = text.replace(said, meant)
        self._file.write_text(text, encoding="utf-8")
        stdin.write(f". '{self._file}' < /dev/null; printf '\\n%s %s\\n' '{_MARK}' $?\n")
        stdin.flush()
        late = threading.Timer(BLOCK_SECONDS_MAX, self._bash.kill)
        late.start()
        lines: list[str] = []
        try:
            for line in stdout:
                if line.startswith(_MARK):
                    return int(line.removeprefix(_MARK)), "".join(lines).removesuffix("\n")
                lines.append(line)
        finally:
            late.cancel()
        raise RuntimeError(f"bash ended, or a block took too long:\n{text}\n{''.join(lines)}")

    def save(self, name: str, text: str) -> None:
        """Save a file in the folder that the reader is in."""
        _, here = self.run("pwd")
        Path(here.strip(), name).write_text(text, encoding="utf-8")

    def close(self) -> None:
        """End it."""
        self._bash.kill()
        self._bash.wait()
        for pipe in (self._bash.stdin, self._bash.stdout):
            if pipe is not None:
                pipe.close()


def follow(page: str, shell: Shell, *, writing: bool = False) -> Iterator[tuple[Block, str, Block | None]]:
    """Run a page's blocks in order; for each ``sh`` block its output, and the block that shows its answer, if any.

    A block that only reads is repeated until it shows the page's answer, or for so long. ``writing``: the page's answers
    are about to be replaced, so that such a block is waited for instead.
    """
    found = blocks(page)
    for at, block in enumerate(found):
        if block.kind == "python" and block.name:
            shell.save(block.name, block.text)
        if block.kind != "sh":
            continue
        following = found[at + 1] if at + 1 < len(found) else None
        answer = following if following is not None and following.kind in ("json", "text") else None
        if writing and block.only_reads:
            time.sleep(8)
        until = time.monotonic() + SETTLED_SECONDS_MAX
        while True:
            code, output = shell.run(block.text)
            as_shown = answer is None or constant(output) == constant(answer.text)
            if writing or not block.only_reads or as_shown or time.monotonic() > until:
                break
            time.sleep(0.3)
        if code:
            raise AssertionError(f"this block of the tutorial ended with {code}:\n{block.text}\n{output}")
        yield block, output, answer


def with_answers(page: str, answers: list[tuple[Block, str]]) -> str:
    """The page with these answers in the place of those it has."""
    for block, output in sorted(answers, key=lambda one: -one[0].start):
        page = page[: block.start] + output.strip("\n") + "\n" + page[block.end :]
    return page
