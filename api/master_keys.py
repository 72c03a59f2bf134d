"""Where the master keys come from: the environment, a file, or a key service.

The port is `MasterKeys`. Its adapters give texts, the current key first; what follows only opens what it once sealed (a
retired key), or will be current soon. A key service is reached through the command line that its vendor ships:
``MIZAN_MASTER_KEY_COMMAND`` runs once in a process, without a shell, and prints the keys. So no vendor's library is
needed, and neither the key nor a way to get it has to lie in a file of Mizan's.
"""

import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from ledger.errors import MizanError

COMMAND_SECONDS_MAX: Final = 15.0
KEYS_MAX: Final = 16


class KeysUnavailable(MizanError):
    """The master keys can't be had; the detail says why, and never what was read."""

    code = "unsafe_settings"


class MasterKeys(Protocol):
    """Somewhere that master keys are kept."""

    def texts(self) -> tuple[str, ...]:
        """The keys as they were written down, the current one first. Raises `KeysUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class InText:
    """Keys in a variable, separated by white space or commas."""

    text: str

    def texts(self) -> tuple[str, ...]:
        """The keys of the text."""
        return _split(self.text)


@dataclass(frozen=True, slots=True)
class InFile:
    """Keys in a file that a secret store mounts, one a line. `variable` names the file in a refusal."""

    path: Path
    variable: str

    def texts(self) -> tuple[str, ...]:
        """The keys in the file, read anew each time."""
        try:
            return _split(self.path.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError) as error:
            raise KeysUnavailable(f"{self.variable} can't be read: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class FromCommand:
    """Keys that a key service's command prints, one a line; asked once in a process."""

    command: str
    variable: str

    def texts(self) -> tuple[str, ...]:
        """What the command prints."""
        return _asked(self.command, self.variable)


@cache
def _asked(command: str, variable: str) -> tuple[str, ...]:
    try:
        done = subprocess.run(  # noqa: S603  the operator's own command, no shell
            shlex.split(command),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # vendors' tools print what they were given
            timeout=COMMAND_SECONDS_MAX,
        )
        return _split(done.stdout.decode("ascii"))
    except subprocess.CalledProcessError as error:
        raise KeysUnavailable(f"{variable} ended with {error.returncode}: run it by hand") from None
    except subprocess.TimeoutExpired:
        raise KeysUnavailable(f"{variable} gave no answer within {COMMAND_SECONDS_MAX:.0f} seconds") from None
    except (OSError, ValueError) as error:
        raise KeysUnavailable(f"{variable} can't be run: {type(error).__name__}") from None


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())[:KEYS_MAX]
