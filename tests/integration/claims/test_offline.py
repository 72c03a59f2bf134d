"""Whoever holds the published keys checks a claim pack offline, and finds whatever was changed in it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import tests
from ledger.seals import SealingKey
from tests.integration.claims.conftest import Claims

SCRIPT = Path(tests.__file__).parents[1] / "docs" / "examples" / "verify_claim_pack.py"


def verifier() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_claim_pack", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(key: SealingKey) -> dict[str, object]:
    return {"keys": {key.key_id: key.public_key.hex()}, "seals": []}


TAMPERINGS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a changed amount": lambda lines: [lines[0], lines[1].replace(b"18000", b"18001"), *lines[2:]],
    "a changed total": lambda lines: [lines[0].replace(b"36000", b"35000"), *lines[1:]],
    "a line taken away": lambda lines: [lines[0], *lines[2:]],
    "a line doubled": lambda lines: [*lines[:2], *lines[1:]],
    "lines in another order": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "another signature": lambda lines: [
        *lines[:-1],
        lines[-1].replace(b'signature":"', b'signature":"00', 1),
    ],
    "no signature": lambda lines: lines[:-1],
    "nothing": lambda lines: lines[:0],
}


def test_a_pack_is_checked_with_published_keys_and_tampering_is_found(claims: Claims, tmp_path: Path) -> None:
    world, check = claims.world, verifier()
    world.send(claims.partner, *(world.completed(world.member(claims.partner)) for _ in range(2)))
    file = claims.file(claims.make())
    assert check.verify(file, published(claims.key))["total"] == 36_000

    for what, tamper in TAMPERINGS.items():
        changed = b"".join(tamper(file.splitlines(keepends=True)))
        assert changed != file, what
        with pytest.raises(check.NotProven):
            check.verify(changed, published(claims.key))
    # whoever rewrites lines and digest alike has no key for it
    forger = SealingKey.generate()
    with pytest.raises(check.NotProven, match="trust"):
        check.verify(file, published(forger))

    pack, keys = tmp_path / "pack.jsonl", tmp_path / "seals.json"
    pack.write_bytes(file)
    keys.write_text(json.dumps(published(claims.key)))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(pack), str(keys)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout[:22]) == (0, "proven: claim 1 from g")
    pack.write_bytes(file.replace(b"18000", b"18002"))
    refused = subprocess.run(
        [sys.executable, str(SCRIPT), str(pack), str(keys)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (refused.returncode, "NOT PROVEN" in refused.stderr) == (1, True)
