"""The composition root: the only place where settings become services and adapters meet ports."""

from dataclasses import dataclass
from datetime import timedelta

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.auth.keys import SigningKeys
from api.auth.oidc import Provider
from api.auth.tokens import Tokens
from api.codes import Codes
from api.limits import VALKEY_SECONDS_MAX, Limits
from api.pagination import Cursors
from api.safety import require_safe
from api.settings import CodeSenderKind, Environment, Settings, UnsafeSettings, reveal
from integrations.codes.console import ConsoleSender
from integrations.codes.file import FileSender
from integrations.codes.nobody import NobodySender
from integrations.codes.webhook import WebhookSender
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret
from integrations.rails.configured import Rails
from ledger.clock import Clock, SystemClock
from ledger.database import Database
from products.keyring import Keyring
from products.members.challenges import CodeSender
from products.programmes.registry import Programmes
from products.remittances.context import Books
from products.safekeeping import prepare


@dataclass(frozen=True, slots=True)
class Services:
    """What a process of Mizan runs on. `api` is under row-level security; `worker` writes remittances and the books."""

    settings: Settings
    clock: Clock
    keyring: Keyring
    books: Books
    api: Database
    worker: Database
    keys: SigningKeys
    tokens: Tokens
    cursors: Cursors
    valkey: redis.Redis
    limits: Limits
    codes: Codes
    rails: Rails
    openid: Provider | None

    @property
    def environment(self) -> Environment:
        """Sandbox or production; settings that are safe to run with always say which."""
        return self.settings.environment or Environment.SANDBOX

    @property
    def loopback_endpoints(self) -> bool:
        """Whether events may go to endpoints on this machine: in a sandbox, unless the settings say no."""
        allowed = self.settings.event_loopback
        return self.environment is Environment.SANDBOX and allowed is not False

    def close(self) -> None:
        """Send what was handed over for sending, and give back every connection."""
        self.codes.close()
        self.rails.close()
        self.api.close()
        self.worker.close()
        self.valkey.close()
        self.limits.close()


def bootstrap(settings: Settings, *, clock: Clock | None = None, name: str = "mizan") -> Services:
    """Build the services of one process; `name` is what PostgreSQL shows of it.

    Raises `UnsafeSettings` for settings that nothing should run with. Connects to nothing yet.
    """
    require_safe(settings)
    ticking = clock or SystemClock()
    keyring = Keyring.of(settings.master_key_bytes, *settings.master_keys_retired_bytes)
    api = _database(settings, "database_url", f"{name} api")
    keyring.index_from(lambda: api.run(lambda tx: prepare(tx, keyring, ticking.now())))
    keys = SigningKeys(api, keyring, ticking)
    worker = _database(settings, "database_url_worker", f"{name} worker")
    return Services(
        settings=settings,
        clock=ticking,
        keyring=keyring,
        books=Books(ticking, keyring, Programmes()),
        api=api,
        worker=worker,
        keys=keys,
        tokens=Tokens(keys, settings.public_url, ticking, timedelta(seconds=settings.token_seconds)),
        cursors=Cursors(keyring, ticking, timedelta(seconds=settings.cursor_seconds)),
        valkey=redis.Redis.from_url(
            reveal(settings.redis_url, "MIZAN_REDIS_URL"),
            socket_timeout=VALKEY_SECONDS_MAX / 2,
            socket_connect_timeout=VALKEY_SECONDS_MAX / 2,
            max_connections=settings.database_pool_size * 4,
            retry=Retry(NoBackoff(), 0),
        ),
        limits=Limits(
            reveal(settings.redis_url, "MIZAN_REDIS_URL"),
            ticking,
            requests_per_minute=settings.requests_per_minute,
            anonymous_requests_per_minute=settings.anonymous_requests_per_minute,
        ),
        codes=Codes(_code_sender(settings, ticking), worker, keyring, ticking),
        rails=Rails(
            worker,
            keyring,
            ticking,
            environment=(settings.environment or Environment.SANDBOX).value,
            public_url=settings.public_url,
        ),
        openid=_openid_provider(settings, ticking),
    )


def _openid_provider(settings: Settings, clock: Clock) -> Provider | None:
    """The provider of operators who log in through one; the settings name it whole or not at all."""
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    return Provider(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=reveal(settings.oidc_client_secret, "MIZAN_OIDC_CLIENT_SECRET"),
        redirect_uri=f"{settings.public_url}/v1/session/openid/callback",
        trusted_acr=_listed(settings.oidc_trusted_acr),
        trusted_amr=_listed(settings.oidc_trusted_amr),
        clock=clock,
    )


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _code_sender(settings: Settings, clock: Clock) -> CodeSender:
    """How members are written to; `api.safety` has seen to what each way needs."""
    if settings.code_sender is CodeSenderKind.WEBHOOK and settings.code_webhook_url is not None:
        try:
            secret = parse_secret(reveal(settings.code_webhook_secret, "MIZAN_CODE_WEBHOOK_SECRET"))
        except ValueError as error:
            raise UnsafeSettings(f"MIZAN_CODE_WEBHOOK_SECRET: {error}") from None
        if not isinstance(secret, SymmetricSecret):
            raise UnsafeSettings("MIZAN_CODE_WEBHOOK_SECRET is a whsec_ secret: a public key signs nothing")
        return WebhookSender(
            settings.code_webhook_url, secret, clock, timeout_seconds=settings.code_webhook_timeout_seconds
        )
    if settings.code_sender is CodeSenderKind.FILE and settings.code_file is not None:
        return FileSender(settings.code_file)
    return NobodySender() if settings.environment is Environment.PRODUCTION else ConsoleSender()


def _database(settings: Settings, field: str, application_name: str) -> Database:
    return Database(
        reveal(getattr(settings, field), f"MIZAN_{field.upper()}"),
        application_name=application_name,
        pool_size=settings.database_pool_size,
        statement_timeout_ms=int(settings.statement_timeout_seconds * 1000),
        lock_timeout_ms=int(settings.lock_timeout_seconds * 1000),
    )
