"""The reference of settings, as Markdown, made from `api.settings.Settings`.

``python -m api.settings_reference > docs/reference/settings.md`` writes it anew; a test compares.
"""

import sys
from enum import StrEnum
from typing import Any, Final, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from api.settings import Settings

_HEAD: Final = """# Settings

Generated from the code by `python -m api.settings_reference`; change `api/settings.py` instead.

Settings are environment variables, or lines of a file `.env` in the folder that Mizan is started in; the environment wins.
An empty variable counts as unset. A process reads them once, at its start. `mizan doctor` says whether they are complete,
and a command refuses to start on settings that are unsafe together, naming the variable that mends it.

With no server configured Mizan runs its own PostgreSQL and Valkey in `MIZAN_DATA_DIR`, and generates what else it needs.
For your own servers see [how to run in production](../how-to/run-in-production.md).

What the contract with partners fixes is not a setting: webhooks are signed within 5 minutes, JSON is at most 32 levels
deep, a page has at most 200 items, and the answer to an `Idempotency-Key` is kept for 30 days.

| variable | what | default | meaning |
|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    default = "" if field.default is None else f"`{field.default}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `MIZAN_{name.upper()}` | {_kind(field)} | {default} | {meaning} |\n"


def _kind(field: FieldInfo) -> str:
    kinds = [one for one in (get_args(field.annotation) or (field.annotation,)) if one is not type(None)]
    kind: Any = kinds[0]
    if issubclass(kind, StrEnum):
        return " · ".join(f"`{member}`" for member in kind)
    word = {"int": "whole number", "float": "number", "Path": "path", "SecretStr": "text, secret"}.get(
        kind.__name__, "text"
    )
    return ", ".join([word, *(_limit(one) for one in field.metadata if isinstance(one, Ge | Gt | Le | Lt))])


def _limit(limit: Ge | Gt | Le | Lt) -> str:
    match limit:
        case Ge():
            return f"from {limit.ge}"
        case Gt():
            return f"above {limit.gt}"
        case Le():
            return f"up to {limit.le}"
        case Lt():
            return f"below {limit.lt}"


if __name__ == "__main__":
    sys.stdout.write(render())
