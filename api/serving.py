"""`mizan serve`: the API, a worker and beat as child processes, started, watched and ended in order.

Each child runs in a session of its own, so that Ctrl-C on the terminal reaches us alone and we end them in order: beat
and the workers first (what they are at is finished), then the API (what it took in is committed and answered). A child
that dies is started again; one that keeps dying ends everything. Nothing is lost either way: what was acknowledged is in
the database.

A child reads its settings from a pipe on its standard input, so that secrets show neither in its arguments nor in its
environment, and ends when the pipe does: nobody outlives a `mizan serve` that was killed.
"""

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_args

from pydantic import SecretStr

from api.observability import logs, metrics, scrape
from api.safety import require_safe
from api.settings import Settings, UnsafeSettings, load
from ledger.errors import Unavailable

log = logging.getLogger("mizan.serve")

Role = Literal["api", "worker", "beat"]

READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS: Final[dict[Role, float]] = {"beat": 5.0, "worker": 30.0, "api": 35.0}
"""How long a child may take to end before it is killed; longer than its longest piece of work."""
ORPHAN_SECONDS: Final = 40.0
RESTARTS_MAX: Final = 5
RESTARTS_WITHIN_SECONDS: Final = 60.0
RESTART_PAUSE_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 0.1
BACKLOG: Final = 2048


class ServeError(Unavailable):
    """The service can't run; the detail says why."""

    code = "serve_failed"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises `ServeError` when the port is taken or not ours to take."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ServeError(f"{host} is no address to listen on: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"port {port} on {host} can't be listened on ({error.strerror}): choose another one with --port"
        ) from None
    return listener


class Serving:
    """The processes of one `mizan serve`, on complete settings: `start`, `wait` or use `url`, `stop`.

    The listening socket stays with us: while the API is started again, connections wait in it.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, roles: Sequence[Role] = get_args(Role)
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._roles = tuple(roles)
        self._children: dict[Role, subprocess.Popen[bytes]] = {}
        self._starts: dict[Role, list[float]] = {role: [] for role in self._roles}
        self._metrics = contextlib.ExitStack()
        self._counts: Path | None = None
        self.metrics_url: str | None = None

    @property
    def url(self) -> str:
        """Where the API listens."""
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}"

    def pid(self, role: Role) -> int:
        """The process id of a child."""
        return self._children[role].pid

    def start(self, cancelled: threading.Event | None = None) -> None:
        """Start every child and wait until the API answers.

        Raises `ServeError` when it doesn't; then nothing is left running. Comes back early when `cancelled` is set.
        """
        try:
            if self._settings.metrics_port is not None:
                self._counts = self._metrics.enter_context(scrape.shared_folder())
                self.metrics_url = self._metrics.enter_context(scrape.listening(self._settings, self._counts))
            for role in self._roles:
                self._spawn(role)
            if "api" in self._roles:
                self._wait_until_it_answers(cancelled or threading.Event())
        except BaseException:
            self.stop(hurry=threading.Event())
            raise

    def wait(self, asked: threading.Event) -> None:
        """Watch over the children until `asked` is set. Raises `ServeError` when one keeps dying."""
        while not asked.wait(WATCH_SECONDS):
            self.check()

    def check(self) -> None:
        """Start again whoever has died. Raises `ServeError` when one keeps dying."""
        for role in self._roles:
            code = self._children[role].poll()
            if code is None:
                continue
            recent = [at for at in self._starts[role] if time.monotonic() - at < RESTARTS_WITHIN_SECONDS]
            if len(recent) > RESTARTS_MAX:
                raise ServeError(
                    f"the {role} process ended {len(recent)} times within a minute, last with {code}"
                )
            log.error("the %s process ended with %d; starting it again", role, code)
            self._end_group(role)
            time.sleep(RESTART_PAUSE_SECONDS)
            self._spawn(role)

    def stop(self, *, hurry: threading.Event | None = None) -> None:
        """End beat, the workers and the API, in this order; those that take too long, or once `hurry` is set, are killed."""
        impatient = hurry or threading.Event()
        for role in sorted(self._children, key=list(STOP_SECONDS).index):
            child = self._children[role]
            child.terminate()
            deadline = time.monotonic() + STOP_SECONDS[role]
            while child.poll() is None and time.monotonic() < deadline and not impatient.is_set():
                time.sleep(0.02)
            if child.poll() is None:
                log.error("the %s process didn't end in time and is killed", role)
            self._end_group(role)
        self._children.clear()
        self._listener.close()
        self._metrics.close()

    def _spawn(self, role: Role) -> None:
        self._starts[role].append(time.monotonic())
        descriptor = self._listener.fileno()
        child = subprocess.Popen(  # noqa: S603  our own module, no shell
            [sys.executable, "-m", "api.serving", role, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # Celery's banner; what there is to say goes to stderr
            pass_fds=[descriptor] if role == "api" else [],
            env=os.environ | ({scrape.FOLDER: str(self._counts)} if self._counts is not None else {}),
            start_new_session=True,
        )
        self._children[role] = child
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(_told(self._settings).encode() + b"\n")
                child.stdin.flush()

    def _end_group(self, role: Role) -> None:
        """Whatever the child leaves behind: itself, if it didn't end, and processes of its own."""
        child = self._children[role]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()

    def _wait_until_it_answers(self, cancelled: threading.Event) -> None:
        host, port = self._listener.getsockname()[:2]
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  an address to compare with
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not cancelled.is_set():
            if self._children["api"].poll() is not None:
                raise ServeError("the API ended while it was starting: see what it said above")
            if _answers(reached, port):
                return
            if time.monotonic() > deadline:
                raise ServeError(f"the API didn't answer within {READY_SECONDS_MAX:.0f} seconds")
            time.sleep(0.05)


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _told(settings: Settings) -> str:
    """The settings with their secrets, for a child's pipe."""
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in settings
    }
    return json.dumps(values, default=str)


# What runs in the children


def log_as(process: str, settings: Settings) -> None:
    """Log as the settings say, in the name of a process."""
    logs.configure(
        process,
        style=settings.log_format,
        level=settings.log_level,
        file=settings.log_file,
        environment=settings.environment,
    )


def run_api(settings: Settings, listener: socket.socket) -> None:
    """Answer requests on `listener` until SIGTERM; what is under way is answered first."""
    import uvicorn

    from api.app import create_app
    from api.connections import bounded
    from api.jobs import collect_garbage_less_often

    log_as("api", settings)
    app = create_app(settings)
    collect_garbage_less_often()  # what there is now stays for ever, and requests leave few cycles
    config = uvicorn.Config(
        app,
        http=bounded(settings.connections_max),
        ws="none",
        proxy_headers=False,  # it would believe anyone on this machine: `api.addresses` reads them
        log_level="warning",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=int(STOP_SECONDS["api"]) - 5,
        timeout_keep_alive=30,
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listener])


def run_worker(settings: Settings) -> None:
    """Run the background's tasks until SIGTERM or SIGINT; what runs then is finished first."""
    from celery.exceptions import SecurityWarning

    from api import worker
    from api.jobs import every, jobs_of

    log_as("worker", settings)
    _celery_logs_as_we_do()
    if settings.metrics_port is not None:
        _time_tasks()
    app = worker.create_worker(settings.broker_url, lambda: jobs_of(settings), every(settings))
    # Embedded mode as root is meant, and a container's root is its own affair.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker.run_worker(app, processes=settings.worker_processes)


def _celery_logs_as_we_do() -> None:
    from celery.signals import setup_logging

    # Whoever listens to this signal has set up the log; Celery then leaves it alone.
    setup_logging.connect(_set_up, weak=False)


def _time_tasks() -> None:
    from celery.signals import task_postrun, task_prerun

    def began(task_id: str, **_: object) -> None:
        metrics.task_began(task_id)

    def ended(task_id: str, task: Any, state: str | None, **_: object) -> None:  # Celery's, made at run time
        metrics.task_ended(task_id, str(task.name), "done" if state == "SUCCESS" else "failed")

    task_prerun.connect(began, weak=False)
    task_postrun.connect(ended, weak=False)


def _set_up(**_: object) -> None:
    """The log is set up already."""


def run_beat(settings: Settings) -> None:
    """Ask for the scheduled jobs until SIGTERM or SIGINT."""
    from api import worker
    from api.jobs import every, jobs_of

    log_as("beat", settings)
    _celery_logs_as_we_do()
    app = worker.create_worker(settings.broker_url, lambda: jobs_of(settings), every(settings))
    worker.run_beat(app)


def _child(role: Role, descriptor: int) -> None:
    logs.configure(role)  # until the settings are here
    # Descriptors and not `sys.stdin`: a thread that waits in it holds its lock, also in the children that Celery forks.
    told = os.dup(sys.stdin.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    settings = load(**json.loads(_line(told)))
    require_safe(settings)
    threading.Thread(target=_end_with_parent, args=(told,), name="parent", daemon=True).start()
    runs: dict[Role, Callable[[], None]] = {
        "api": lambda: run_api(settings, socket.socket(fileno=descriptor)),
        "worker": lambda: run_worker(settings),
        "beat": lambda: run_beat(settings),
    }
    runs[role]()


def _line(told: int) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        part = os.read(told, 65_536)
        if not part:
            raise UnsafeSettings("this process is started by `mizan serve`")
        read += part
    return read


def _end_with_parent(told: int) -> NoReturn:
    """End this process when the parent does, however it ended: its end of the pipe is closed by the kernel."""
    while os.read(told, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)
    raise SystemExit(1)


if __name__ == "__main__":
    _role = next(role for role in get_args(Role) if role == sys.argv[1])
    _child(_role, int(sys.argv[2]))
