"""Mappings of CSV files, as the command line takes them: a JSON object in a file."""

from pathlib import Path
from typing import Any

from api.cli import session
from integrations import strict_json
from integrations.csv_files.mapping import MAPPING_BYTES_MAX


def mapping_in(file: Path) -> dict[str, Any]:
    """A mapping in a file. Raises `Refused` for what is no JSON object."""
    if file.stat().st_size > MAPPING_BYTES_MAX:
        raise session.Refused(f"a mapping has at most {MAPPING_BYTES_MAX} bytes")
    try:
        given = strict_json.loads(file.read_bytes())
    except strict_json.NotStrictJson as error:
        raise session.Refused(f"{file}: {error}") from None
    if not isinstance(given, dict):
        raise session.Refused(f"{file}: a mapping is a JSON object")
    return given
