"""The servers of a shadow: embedded, in a folder of their own, gone afterwards unless the folder was named."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from api.bootstrap import Services, bootstrap
from api.embedded import servers
from api.migrations.run import migrate
from api.settings import CodeSenderKind, Environment, Settings
from api.stamp import require_keys, require_stamp
from ledger.clock import FixedClock
from ledger.errors import Conflict

_CARELESS: Final = {"synchronous_commit": "off"}
"""What a kill would lose is replayed anew; nothing else is relaxed."""


class FolderNotEmpty(Conflict):
    """A shadow begins with nothing: its folder has to be new, or empty."""

    code = "folder_not_empty"


class _OwnSettings(Settings):
    """Settings that know only what they are given: no environment variable and no `.env` of the live deployment is read."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  as the library calls it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@contextmanager
def shadow(clock: FixedClock, folder: Path | None) -> Iterator[Services]:
    """The services of a shadow, under a clock of the past; in a temporary folder where none is named. Raises `FolderNotEmpty`."""
    with _place(folder) as place:
        given = _OwnSettings(
            data_dir=place / "shadow",
            environment=Environment.SANDBOX,
            code_sender=CodeSenderKind.FILE,
            code_file=place / "codes",
            event_loopback=False,
        )
        with servers(given, postgres_overrides=_CARELESS, linger_seconds=0) as running:
            migrate(running.settings)
            services = bootstrap(running.settings, clock=clock, name="mizan shadow")
            try:
                services.api.run(lambda tx: require_stamp(tx, running.settings))
                services.api.run(lambda tx: require_keys(tx, services.keyring, clock.now()))
                yield services
            finally:
                services.close()
        if folder is None:
            running.destroy()


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mizan-shadow-") as made:
            Path(made).chmod(0o711)
            yield Path(made)
        return
    if folder.exists() and any(folder.iterdir()):
        raise FolderNotEmpty(f"{folder} is not empty: a shadow begins with nothing.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    yield folder.resolve()
