"""Messages as lines of JSON in a file: for tests, and for trying a sandbox from a script."""

import json
import os
from pathlib import Path
from threading import Lock

from products.members.challenges import CodeNotSent


class FileSender:
    """Appends ``{"to", "text", "language"}``, one line each, in one write, to a file that only its owner reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()

    def send(self, to: str, text: str, language: str) -> None:
        """Append one message. Raises `CodeNotSent` when the file can't be written."""
        line = json.dumps({"to": to, "text": text, "language": language}, ensure_ascii=False) + "\n"
        try:
            with self._lock:
                opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(opened, line.encode())
                finally:
                    os.close(opened)
        except OSError as error:
            raise CodeNotSent(type(error).__name__) from error
