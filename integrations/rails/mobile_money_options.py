"""How a mobile money rail is configured: its options, which anyone may see, and its keys, which rest sealed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

KEY_CHARACTERS_MIN: Final = 16
KEYS_AT_ONCE_MAX: Final = 2
SECRETS: Final = frozenset({"api_key", "callback_api_key", "callback_path_key"})
"""`api_key`: ours at the provider. `callback_api_key`: what the provider sends to our hook as ``X-API-Key``.
`callback_path_key`: what the unguessable paths of callbacks are made with. The last two take two keys, a space between, while
one replaces the other; new paths are made with the first."""


class Party(BaseModel):
    """One identifier of an account: `key` as the API lists them (``organisationid``, ``accountid``, ``msisdn`` without ``+`` …)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(pattern=r"^[a-z]{1,40}$")]
    value: Annotated[str, Field(pattern=r"^[^\s@$/+][^\s@$/]{0,127}$")]


class MobileMoneyOptions(BaseModel):
    """What is to be known of a provider beside its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Annotated[
        str,
        Field(
            pattern=r"^https?://[^\s?#]+$",
            description="The provider's API up to and with `…/v1.2/mm` or what stands for it.",
        ),
    ]
    client_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$", description="Sent as `X-Client-Id`.")]
    debit_party: Annotated[
        tuple[Party, ...],
        Field(
            min_length=1,
            max_length=3,
            description="The account that pays: up to three identifiers, as the provider knows it.",
        ),
    ]
    operator_key: Annotated[
        str,
        Field(pattern=r"^[a-z]{1,40}$", description="The identifier in which a payee's operator is sent."),
    ] = "serviceprovider"
    at_once: Annotated[
        int, Field(ge=1, le=32, description="Requests, and connections, that run at the same time.")
    ] = 16
    together_max: Annotated[int, Field(ge=1, le=500, description="Payments that one batch takes.")] = 64
    timeout_seconds: Annotated[float, Field(ge=0.1, le=30, description="For each request.")] = 5.0
    batch_seconds: Annotated[
        float, Field(ge=0.1, le=30, description="After it no further payment of a batch is begun.")
    ] = 4.0
    asks_after_seconds: Annotated[
        float, Field(ge=0, le=86_400, description="When a payment without a final word is first asked about.")
    ] = 30.0
    forgets_after_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=604_800,
            description="How long after a sending the provider's 'never heard of it' is believed: longer than its slowest "
            "request is pending, as many find a request by its id only when it is done.",
        ),
    ] = 3600.0
    page_size: Annotated[int, Field(ge=1, le=1000, description="Transactions on a page of its list.")] = 100
    authorities_file: Annotated[
        Path | None, Field(description="PEM: who signs the provider's certificate; else the machine's list.")
    ] = None
    certificate_file: Annotated[
        Path | None, Field(description="PEM: our own certificate, for mutual TLS.")
    ] = None
    certificate_key_file: Annotated[
        Path | None, Field(description="PEM: its key, if it isn't in the same file.")
    ] = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.certificate_key_file is not None and self.certificate_file is None:
            raise ValueError("a certificate's key is given without its certificate")
        parts = urlsplit(self.base_url)
        if parts.username is not None or not parts.hostname:
            raise ValueError("the address names a host, and no user")
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether the provider is reached by TLS."""
        return self.base_url.startswith("https://")


@dataclass(frozen=True, slots=True)
class Keys:
    """The rail's keys: `api` ours at the provider; `callbacks` and `paths` one or two each, the newest first."""

    api: str = field(repr=False)
    callbacks: tuple[str, ...] = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, secrets: Mapping[str, str]) -> "Keys":
        """The keys in a rail's secrets. Raises `ValueError`, which quotes none of them."""
        if set(secrets) != SECRETS:
            raise ValueError(f"a mobile money rail has the secrets {', '.join(sorted(SECRETS))}")
        callbacks, paths = (_keys(name, secrets[name]) for name in ("callback_api_key", "callback_path_key"))
        if not secrets["api_key"].isascii() or not secrets["api_key"].isprintable() or not secrets["api_key"]:
            raise ValueError("api_key is printable ASCII")
        if secrets["api_key"] in callbacks:
            raise ValueError("what we send the provider and what it sends us are different keys")
        return cls(secrets["api_key"], callbacks, paths)


def _keys(name: str, written: str) -> tuple[str, ...]:
    keys = tuple(written.split())
    if not 1 <= len(keys) <= KEYS_AT_ONCE_MAX or min(map(len, keys)) < KEY_CHARACTERS_MIN:
        raise ValueError(f"{name} is one key or two, each of at least {KEY_CHARACTERS_MIN} characters")
    if not written.isascii():
        raise ValueError(f"{name} is ASCII")
    return keys
