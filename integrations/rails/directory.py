"""The kinds of rails, and the adapter of a configured one."""

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from pydantic import BaseModel, ValidationError

from integrations.rails import bank_file, mobile_money, simulator, stripe_rail
from integrations.rails.setting import InvalidRailOptions, Setting
from products.payouts.rails import Rail


class Kind(Protocol):
    """A module that knows one kind of rail."""

    OPTIONS: type[BaseModel]
    """Its options: a pydantic model that refuses unknown fields."""
    SECRETS: Collection[str]
    """The names of its secrets, all of which it needs."""
    CHECKS_PAYEES: bool
    """Whether `Rail.check` can ever tell something: only then does a payout wait for it."""

    def build(self, options: Mapping[str, object], secrets: Mapping[str, str], setting: Setting) -> Rail:
        """The adapter, with options that were validated."""
        ...


ADAPTERS: Final[Mapping[str, Any]] = {  # modules, each as `Kind` says
    "mobile_money": mobile_money,
    "bank_file": bank_file,
    "simulator": simulator,
    "stripe": stripe_rail,
}
"""Every kind of rail, by its name."""


def kind_of(name: str) -> Kind:
    """The kind of this name. Raises `InvalidRailOptions`."""
    found: Kind | None = ADAPTERS.get(name)
    if found is None:
        raise InvalidRailOptions(f"a rail is of a kind: {', '.join(sorted(ADAPTERS))}")
    return found


def validated(
    name: str, options: Mapping[str, object], secrets: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, str]]:
    """Options as the kind keeps them, and its secrets, complete. Raises `InvalidRailOptions`, which names no value."""
    kind = kind_of(name)
    try:
        kept = kind.OPTIONS.model_validate(dict(options)).model_dump(mode="json")
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'options'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise InvalidRailOptions(faults) from None
    if set(secrets) != set(kind.SECRETS):
        wanted = ", ".join(sorted(kind.SECRETS)) or "none"
        raise InvalidRailOptions(f"the secrets of a rail of kind {name} are: {wanted}")
    return kept, dict(secrets)


def build(name: str, options: Mapping[str, object], secrets: Mapping[str, str], setting: Setting) -> Rail:
    """The adapter of a configured rail. Raises what the kind refuses to run with."""
    return kind_of(name).build(options, secrets, setting)
