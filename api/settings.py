"""The settings of a deployment: typed, frozen, and refused when they are unsafe together.

They come from environment variables prefixed `MIZAN_`, then from a `.env` file. Every field is documented here and
nowhere else: `docs/reference/settings.md` is generated from this class.
"""

import base64
import binascii
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.addresses import parse_networks
from api.master_keys import FromCommand, InFile, InText, KeysUnavailable, MasterKeys
from ledger.errors import MizanError

KEY_BYTES = 32
SANDBOX_PREFIX = "mzn_test_"
PRODUCTION_PREFIX = "mzn_live_"


class Environment(StrEnum):
    """What the deployment is for: trying things out, or people's money."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class LogFormat(StrEnum):
    """How a line of the log is written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class CodeSenderKind(StrEnum):
    """How members are sent their codes and notices."""

    CONSOLE = "console"
    FILE = "file"
    WEBHOOK = "webhook"


class UnsafeSettings(MizanError):
    """The settings are missing something, malformed, or unsafe together; nothing was started."""

    code = "unsafe_settings"


class Settings(BaseSettings):
    """What an operator decides. Frozen: a running process never changes its mind."""

    model_config = SettingsConfigDict(
        env_prefix="MIZAN_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    environment: Environment | None = Field(
        default=None,
        description="`sandbox` or `production`. Stamped into the database, the issuer and the secrets. Must be said when servers are"
        " configured; on embedded servers it is `sandbox` unless said otherwise.",
    )
    data_dir: Path = Field(
        default=Path(".mizan"),
        description="Where the embedded servers and their generated secrets live. Unused when every server is configured.",
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for the API, as role `mizan_api` (row-level security applies): `postgresql://user:password@host/name`."
        " Without any URL, Mizan runs its own PostgreSQL and Valkey.",
    )
    database_url_owner: SecretStr | None = Field(
        default=None, description="PostgreSQL for `mizan migrate`, as role `mizan_owner`."
    )
    database_url_worker: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for the workers, as role `mizan_worker` (may insert into the journal, never update it).",
    )
    database_url_sealer: SecretStr | None = Field(
        default=None, description="PostgreSQL for the sealer, as role `mizan_sealer`; always the primary."
    )
    database_url_auditor: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for verification and reports, as role `mizan_auditor` (reads only).",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Valkey or Redis, for queues and rate limits: `redis://`, `rediss://`, or `unix:///path/to/socket`.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections to PostgreSQL that one process keeps open at most."
    )

    master_key: SecretStr | None = Field(
        default=None,
        description="The key that wraps all other keys: 32 bytes in base64, as `mizan doctor --new-key` prints. Losing it loses all"
        " personal data. Generated on embedded servers.",
    )
    master_key_file: Path | None = Field(
        default=None,
        description="A file that holds the master key, instead of `MIZAN_MASTER_KEY`; further lines are keys like"
        " `MIZAN_MASTER_KEYS_RETIRED`.",
    )
    master_key_command: str | None = Field(
        default=None,
        description="A command that prints the master key, instead of `MIZAN_MASTER_KEY`: a key service's own, run once in each process,"
        " without a shell. Further lines are keys like `MIZAN_MASTER_KEYS_RETIRED`.",
    )
    master_keys_retired: SecretStr | None = Field(
        default=None,
        description="Master keys that only open what they once sealed, separated by commas: needed while the master key is rotated.",
    )
    seal_key: SecretStr | None = Field(
        default=None,
        description="The Ed25519 private key that signs seals: 32 bytes in base64. Generated on embedded servers.",
    )
    seal_key_file: Path | None = Field(
        default=None, description="A file that holds the seal key, instead of `MIZAN_SEAL_KEY`."
    )

    public_url: str = Field(
        default="http://127.0.0.1:8000",
        pattern=r"^https?://[^/?#\s]+(/[^?#\s]*[^/?#\s])?$",
        description="Where the outside reaches Mizan, without a final slash: the issuer of tokens and the base of links.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.AUTO,
        description="`json`: one object a line; `console`: for people; `auto`: for people on a terminal in the sandbox, else JSON.",
    )
    log_level: LogLevel = Field(default=LogLevel.WARNING, description="The least that is logged.")
    log_file: Path | None = Field(
        default=None,
        description="A file that every process of Mizan appends its log to as JSON, besides its stderr.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address that `/metrics` listens on: never one that the outside reaches.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port of `/metrics`, on a listener of its own; 0 takes a free one. Without it nothing is measured.",
    )
    traces_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="Where traces are sent by OTLP over HTTP, such as `http://collector:4318/v1/traces`. Without it nothing is traced.",
    )
    traces_share: float = Field(
        default=1.0, ge=0, le=1, description="The share of deliveries that are traced, each of them whole."
    )

    host: str = Field(default="127.0.0.1", description="Address that `mizan serve` listens on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port that `mizan serve` listens on; 0 takes a free one."
    )

    app_page: bool = Field(
        default=False,
        description="Serve `/app`, a member's account as a partner's app would show it, with members of an example partner. In the sandbox"
        " only; `mizan serve` on embedded servers serves it in any case.",
    )

    hook_body_bytes_max: int = Field(
        default=256 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="The largest webhook body accepted; more is 413.",
    )
    hook_queue_max: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Deliveries that may wait for their commit in one API process; more is 503.",
    )
    hook_batch_max: int = Field(
        default=512, ge=1, le=10_000, description="Deliveries that share one commit at most."
    )
    hook_gather_milliseconds: float = Field(
        default=1.5,
        ge=0,
        le=100,
        description="How long the first delivery of a commit waits for others to join it.",
    )

    worker_batch_max: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="Deliveries that a worker processes in one database transaction at most.",
    )
    worker_processes: int = Field(
        default=2, ge=1, le=256, description="Worker processes that `mizan serve` and `mizan worker` start."
    )
    sweep_seconds: float = Field(
        default=5.0, gt=0, le=3600, description="How often deliveries whose wake-up was lost are looked for."
    )
    rail_seconds: float = Field(
        default=2.0, gt=0, le=3600, description="How often approved payouts are sent off and rails are asked."
    )
    rail_lease_seconds: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        description="How long a rail's answer is waited for before others ask what became of the payments.",
    )
    rail_batch_max: int = Field(
        default=1000, ge=1, le=10_000, description="Payouts that are sent off to a rail at once at most."
    )
    seal_seconds: float = Field(
        default=10.0, gt=0, le=86_400, description="How often settled transactions are sealed."
    )
    fold_seconds: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="How often settled postings are folded into daily movements.",
    )
    vest_seconds: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="How often match that is due becomes the members' own, and windows that are over grant theirs.",
    )
    event_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="How often what happened is turned into partners' events."
    )
    event_retention_days: int = Field(
        default=90,
        ge=30,
        le=3650,
        description="Days for which partners' events, and what became of their deliveries, are kept: in the feed and for replay.",
    )
    event_timeout_seconds: float = Field(
        default=20.0,
        ge=15,
        le=30,
        description="How long a partner's endpoint may take, from looking up its name to the answer's headers.",
    )
    event_loopback: bool | None = Field(
        default=None,
        description="Whether partners may register endpoints on this machine, `http://127.0.0.1:port`: in a sandbox they may unless this says"
        " no; in production it is refused.",
    )
    delivery_retention_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        description="Days after posting at which the encrypted body of a delivery is destroyed.",
    )
    audit_value_retention_days: int = Field(
        default=90,
        ge=8,
        le=3650,
        description="Days after which the values before and after in the audit log, and what requests asked for, are destroyed. Their digests stay.",
    )

    request_body_bytes_max: int = Field(
        default=256 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="The largest body of a REST request; more is 413.",
    )
    upload_bytes_max: int = Field(
        default=32 * 1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="The largest file that is uploaded, such as a bank's answer or a partner's settlement file; more is 413.",
    )
    statement_bytes_max: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        le=1024 * 1024 * 1024,
        description="The largest bank statement's file that is uploaded; more is 413. It is written to disk while it arrives.",
    )
    statement_seconds_max: float = Field(
        default=600.0,
        gt=0,
        le=3600,
        description="How long a bank statement's file may take to arrive, and as long again to be brought in.",
    )
    statement_file_days: int = Field(
        default=3650,
        ge=365,
        le=36_500,
        description="Days after which the content of bank statements' files, and the names and texts of their lines, are destroyed. Amounts,"
        " days, references and the files' digests stay.",
    )
    statements_folder: Path | None = Field(
        default=None,
        description="A folder whose files are brought in as bank statements; what is done lies in its `done/`, what is refused in its"
        " `refused/` beside a `.reason`. Files of an account's own format go into a folder of the account's name. Unset: none is watched.",
    )
    statements_folder_seconds: float = Field(
        default=15.0, gt=0, le=3600, description="How often that folder is looked through."
    )
    cursor_seconds: int = Field(
        default=7 * 86_400, ge=60, le=90 * 86_400, description="How long a list's cursor can be used."
    )
    token_seconds: int = Field(default=900, ge=60, le=900, description="Lifetime of an access token.")
    quote_seconds: int = Field(
        default=900, ge=60, le=86_400, description="How long a quote binds, by the time of payment."
    )
    requests_per_minute: int = Field(
        default=6000,
        ge=1,
        le=10_000_000,
        description="REST requests a client may send in a minute before 429.",
    )
    anonymous_requests_per_minute: int = Field(
        default=6000,
        ge=1,
        le=10_000_000,
        description="Requests without a token that one address may send in a minute before 429; a refused proof (a bad token, secret or"
        " signature) counts as 10. IPv6 is counted by /64.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Proxies in front of Mizan whose word on a client's address counts: addresses and CIDRs, separated by commas. Empty: nobody's.",
    )
    forwarded_header: str = Field(
        default="X-Forwarded-For",
        pattern=r"^(?i:X-Forwarded-For|Forwarded)$",
        description="The header in which those proxies leave the client's address: `X-Forwarded-For` or `Forwarded` (RFC 7239).",
    )
    request_body_seconds_max: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long the body of a REST request may take to arrive; longer is 408.",
    )
    request_concurrency_max: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="REST requests that one API process has under way at most; more is 503. Webhooks have their own queue.",
    )
    request_seconds_max: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long one request may take, from its last byte to the answer's, before it is answered 503; files of opening"
        " balances have 15 minutes, the general ledger's export an hour.",
    )
    connections_max: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="Connections that one API process keeps open at most; more are closed at once.",
    )

    statement_timeout_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Longest statement in PostgreSQL before it is cancelled."
    )
    lock_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Longest wait for a lock in PostgreSQL before the unit is retried or refused.",
    )

    session_idle_minutes: int = Field(
        default=30, ge=1, le=1440, description="Minutes after which an operator's unused session ends."
    )
    session_hours: int = Field(
        default=12, ge=1, le=168, description="Hours after which an operator's session ends in any case."
    )
    oidc_issuer: str | None = Field(
        default=None,
        pattern=r"^https?://[^?#\s]+$",
        description="The OpenID Connect provider of operators who log in through one: its issuer, exactly as it writes it.",
    )
    oidc_client_id: str | None = Field(
        default=None, description="The client id that the provider knows Mizan by."
    )
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="The secret of that client, sent with `client_secret_basic`."
    )
    oidc_trusted_acr: str = Field(
        default="",
        description="Values of `acr`, separated by commas, by which the provider says that it asked for a second factor. With any other,"
        " Mizan asks for a code of its own authenticator.",
    )
    oidc_trusted_amr: str = Field(
        default="",
        description="Values of `amr`, separated by commas, any of which says the same: `mfa`, say.",
    )

    code_sender: CodeSenderKind | None = Field(
        default=None,
        description="How members are sent their codes and notices: `webhook`, a signed POST to an SMS gateway; `console`, on the terminal, or"
        " `file`, both in the sandbox only. Unset: `console` in the sandbox; in production nothing is sent, so no member proves anything.",
    )
    code_file: Path | None = Field(
        default=None,
        description="The file that `MIZAN_CODE_SENDER=file` appends messages to, one line of JSON each.",
    )
    code_webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^#\s]+$",
        description="The address of the SMS gateway for `MIZAN_CODE_SENDER=webhook`; `https://` in production.",
    )
    code_webhook_secret: SecretStr | None = Field(
        default=None,
        description="What those messages are signed with (Standard Webhooks): `whsec_` and 16 to 64 random bytes in base64.",
    )
    code_webhook_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long the gateway may take to answer before the message is tried again.",
    )

    embedded_account: str = Field(
        default="nobody",
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$",
        description="The system account that runs the embedded servers when Mizan itself runs as root (PostgreSQL refuses root).",
    )

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator(
        "database_url",
        "database_url_owner",
        "database_url_worker",
        "database_url_sealer",
        "database_url_auditor",
        mode="after",
    )
    @classmethod
    def _postgresql_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            raise ValueError("is not a database URL") from None
        if url.drivername not in {"postgresql", "postgresql+psycopg"}:
            raise ValueError("must begin with postgresql:// (psycopg 3)")
        return SecretStr(url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False))

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @model_validator(mode="after")
    def _servers_are_all_configured_or_none(self) -> Self:
        names = (
            "database_url",
            "database_url_owner",
            "database_url_worker",
            "database_url_sealer",
            "database_url_auditor",
        )
        if self.redis_url is not None and self.database_url is None:
            raise ValueError(
                "MIZAN_REDIS_URL is set without MIZAN_DATABASE_URL: configure both servers, or neither (embedded)"
            )
        if self.database_url is None:
            said = [f"MIZAN_{name.upper()}" for name in names if getattr(self, name) is not None]
            if said:
                raise ValueError(f"{', '.join(said)} set without MIZAN_DATABASE_URL")
        elif self.redis_url is None:
            raise ValueError(
                "MIZAN_DATABASE_URL is set without MIZAN_REDIS_URL: configure both servers, or neither (embedded)"
            )
        return self

    @model_validator(mode="after")
    def _the_provider_is_named_whole_or_not_at_all(self) -> Self:
        named = [self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret]
        if any(one is not None for one in named) and None in named:
            raise ValueError(
                "MIZAN_OIDC_ISSUER, MIZAN_OIDC_CLIENT_ID and MIZAN_OIDC_CLIENT_SECRET are set together, or none of them"
            )
        return self

    @property
    def embedded(self) -> bool:
        """Whether Mizan runs its own PostgreSQL and Valkey: no server is configured."""
        return self.database_url is None and self.redis_url is None

    @property
    def broker_url(self) -> str:
        """The queue's URL in Celery's spelling: `unix://` becomes `redis+socket://`."""
        url = reveal(self.redis_url, "MIZAN_REDIS_URL")
        if not url.startswith("unix://"):
            return url
        address, _, query = url.removeprefix("unix://").partition("?")
        number = next((part[3:] for part in query.split("&") if part.startswith("db=")), "0")
        return f"redis+socket://{address}?virtual_host={number}"

    def variables(self) -> dict[str, str]:
        """These settings as environment variables, for a process of Mizan's that this one starts. Holds secrets."""
        found: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None:
                found[f"MIZAN_{name.upper()}"] = str(
                    value.get_secret_value() if isinstance(value, SecretStr) else value
                )
        return found

    @property
    def master_key_bytes(self) -> bytes:
        """The current master key, 32 bytes. Raises UnsafeSettings when it is absent or malformed."""
        return self.keys("master_key")[0]

    @property
    def master_keys_retired_bytes(self) -> list[bytes]:
        """The master keys that only open, 32 bytes each. Raises UnsafeSettings when one is malformed."""
        return self.keys("master_key")[1:]

    @property
    def seal_key_bytes(self) -> bytes:
        """The seed of the Ed25519 seal key, 32 bytes. Raises UnsafeSettings when it is absent or malformed."""
        return self.keys("seal_key")[0]

    @property
    def master_keys(self) -> MasterKeys:
        """Where the master keys are kept: the first of variable, file and command that is set."""
        return self._kept("master_key")

    def _kept(self, name: str) -> MasterKeys:
        variable = f"MIZAN_{name.upper()}"
        value: SecretStr | None = getattr(self, name)
        file: Path | None = getattr(self, f"{name}_file")
        if value is None and file is not None:
            return InFile(file, f"{variable}_FILE")
        if value is None and name == "master_key" and self.master_key_command is not None:
            return FromCommand(self.master_key_command, f"{variable}_COMMAND")
        return InText("" if value is None else value.get_secret_value())

    def key_texts(self, name: str) -> tuple[str, ...]:
        """The `master_key` (the current one first) or `seal_key` as it was written. Raises UnsafeSettings."""
        try:
            texts = self._kept(name).texts()
        except KeysUnavailable as error:
            raise UnsafeSettings(error.detail) from None
        if name == "master_key" and texts and self.master_keys_retired is not None:
            texts += InText(self.master_keys_retired.get_secret_value()).texts()
        return texts

    def keys(self, name: str) -> list[bytes]:
        """The same, 32 bytes each. Raises UnsafeSettings when there is none or one is malformed."""
        variable = f"MIZAN_{name.upper()}"
        texts = self.key_texts(name)
        if not texts:
            raise UnsafeSettings(
                f"{variable} is missing: 32 random bytes in base64 (`openssl rand -base64 32`)"
            )
        return [_key(variable, text) for text in texts]


def _key(variable: str, text: str) -> bytes:
    try:
        key = base64.b64decode(
            text.removeprefix(SANDBOX_PREFIX).removeprefix(PRODUCTION_PREFIX), validate=True
        )
    except binascii.Error:
        raise UnsafeSettings(f"{variable} is not base64") from None
    if len(key) != KEY_BYTES:
        raise UnsafeSettings(f"{variable} holds {len(key)} bytes; it must hold {KEY_BYTES}")
    return key


def reveal(secret: SecretStr | None, variable: str) -> str:
    """The text of a secret setting, or UnsafeSettings naming the variable that is missing."""
    if secret is None:
        raise UnsafeSettings(f"{variable} is missing")
    return secret.get_secret_value()


def load(**overrides: object) -> Settings:
    """The settings from the environment and `.env`, with `overrides` (a command's options) on top.

    Raises:
        UnsafeSettings: a value is malformed or the servers are half configured.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks what mypy can't
    except ValidationError as error:
        problems = []
        for item in error.errors():
            where = "_".join(str(part) for part in item["loc"])
            problems.append(
                f"MIZAN_{where.upper()}: {item['msg']}"
                if where
                else item["msg"].removeprefix("Value error, ")
            )
        raise UnsafeSettings("; ".join(problems)) from None
