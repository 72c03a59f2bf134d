"""The embedded books as one file, and back into an empty data directory."""

import os
import shutil
import tempfile
from pathlib import Path

from tests.conftest import RUN_DIRECTORY
from tests.integration.test_cli import Commands


def test_dumped_books_are_restored_with_their_secrets_and_verify(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="backup-", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    old, new, file = Commands(folder / "old"), Commands(folder / "new"), tmp_path / "mizan.dump"
    old.text("partner", "create", "acme", "--programme", "ejoheza", "--terms", "net")
    old.text("sponsor", "fund", "gov-rw", "--programme", "ejoheza", "--amount", "1000000")
    assert old.json("dump", str(file))["bytes"] > 0
    assert "exists" in old.refusal("dump", str(file))
    assert "holds books already" in old.refusal("restore", str(file))

    (folder / "new").mkdir(mode=0o700)
    shutil.copytree(folder / "old" / "secrets", folder / "new" / "secrets")
    assert new.json("restore", str(file))["restored"]

    assert new.json("ledger", "verify")["ok"]
    assert new.json("ledger", "verify")["transactions"] == 1
    assert [one["slug"] for one in new.json("partner", "list")["data"]] == ["acme"]
    # a secret that was wrapped in the old books still opens in the new ones
    new.text("partner", "rotate-secret", "acme")
