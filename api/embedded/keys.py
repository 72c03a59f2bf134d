"""The secrets that embedded mode makes for itself, under `secrets/` in the data directory."""

import base64
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from api.embedded.errors import ServersUnavailable
from api.embedded.postgres import LOGIN_ROLES, SUPERUSER
from api.settings import KEY_BYTES, SANDBOX_PREFIX


@dataclass(frozen=True, slots=True)
class Keys:
    """What the servers and Mizan's processes share."""

    postgres_passwords: dict[str, str]
    valkey_password: str
    master_key: str
    seal_key: str


def load_or_make(data_dir: Path) -> Keys:
    """Read the secrets of a data directory, making those that are missing; call it with the directory locked."""
    folder = data_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    return _keys(folder, make=True)


def load(data_dir: Path) -> Keys:
    """Read the secrets of a data directory that somebody else runs."""
    return _keys(data_dir / "secrets", make=False)


def _keys(folder: Path, *, make: bool) -> Keys:
    def password(name: str) -> str:
        return _secret(folder / f"{name}.password", secrets.token_urlsafe(24) if make else None)

    def key(name: str) -> str:
        # Marked, so that a production deployment refuses them: embedded servers are a sandbox.
        text = SANDBOX_PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        return _secret(folder / f"{name}.key", text if make else None)

    return Keys(
        postgres_passwords={role: password(role) for role in (SUPERUSER, *LOGIN_ROLES)},
        valkey_password=password("valkey"),
        master_key=key("master"),
        seal_key=key("seal"),
    )


def _secret(path: Path, fresh: str | None) -> str:
    """The secret in a file; `fresh` is written there first when the file is missing."""
    if fresh is not None and not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.unlink(missing_ok=True)
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as file:
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().strip()
    except OSError as error:
        raise ServersUnavailable(f"the secret {path} can't be read: {error.strerror}") from None
    if mode & 0o077:
        raise ServersUnavailable(
            f"the secret {path} can be read by others (mode {mode:o}): chmod 600 it, and think about who has read it"
        )
    if not text:
        raise ServersUnavailable(
            f"the secret {path} is empty: restore it from a backup; what it protects can't be read without it"
        )
    return text
