"""Messages on the terminal of `mizan serve`: for the sandbox, where nobody has a phone."""

import sys


class ConsoleSender:
    """Prints each message whole to standard error, past the log, which holds no codes and no phone numbers."""

    def send(self, to: str, text: str, language: str) -> None:
        """Print one message."""
        print(f"[message to {to}, {language}] {text}", file=sys.stderr, flush=True)
