"""`python -m api.migrations.check`: do the migrations build, from nothing, what the models describe?"""

import sys
import tempfile
from pathlib import Path

from api import embedded
from api.migrations.run import current, differences, newest, upgrade
from api.settings import load


def main() -> int:
    """Migrate an empty database twice, compare it with the models, and print where they disagree."""
    with tempfile.TemporaryDirectory(prefix="mizan-check-") as folder:
        Path(folder).chmod(0o711)  # as root, the servers' account must get through
        settings = load(data_dir=Path(folder) / "mizan", _env_file=None)
        with embedded.servers(settings, postgres_overrides={"fsync": "off"}) as servers:
            owner = servers.url("mizan_owner")
            upgrade(owner)
            upgrade(owner)
            found = differences(owner)
            if current(owner) != newest():
                found.append(f"the database is at {current(owner)}, not at {newest()}")
        servers.destroy()
    for line in found:
        print(line)
    print(
        f"migrations: {'they disagree with the models' if found else 'an empty database becomes what the models describe'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
