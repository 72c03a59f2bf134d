"""What settings must not be: incomplete, half sandbox and half production, or with secrets that protect nothing.

Every process asks before it connects to anything; what is refused says which variable mends it and never shows a secret.
"""

from sqlalchemy.engine import make_url

from api.settings import KEY_BYTES, SANDBOX_PREFIX, CodeSenderKind, Environment, Settings, UnsafeSettings


def require_safe(settings: Settings) -> None:
    """Refuse to start on what is incomplete or unsafe together.

    Call it on the settings that a process really runs with: on embedded servers those of `EmbeddedServers.settings`.

    Raises:
        UnsafeSettings: says what is wrong and which variable mends it. Never shows a secret.
    """
    for problem in problems_of(settings):
        raise UnsafeSettings(problem)


def problems_of(settings: Settings) -> list[str]:
    """What is incomplete or unsafe together, a sentence each, with the variable that mends it; none: they are safe."""
    problems: list[str] = []
    if settings.environment is None:
        problems.append("servers are configured, so MIZAN_ENVIRONMENT must say sandbox or production")
    if settings.embedded:
        problems.append(
            "no server is configured: production needs MIZAN_DATABASE_URL, MIZAN_DATABASE_URL_WORKER, … and MIZAN_REDIS_URL"
            if settings.environment is Environment.PRODUCTION
            else "no server is configured and no embedded server was started"
        )
    for name in ("master_key", "seal_key"):
        try:
            keys = settings.keys(name)
        except UnsafeSettings as error:
            problems.append(error.detail)
            continue
        if any(len(set(key)) < KEY_BYTES // 2 for key in keys):
            problems.append(
                f"MIZAN_{name.upper()} is not random: generate one with `openssl rand -base64 32`"
            )
    if not problems and settings.seal_key_bytes in settings.keys("master_key"):
        problems.append(
            "MIZAN_MASTER_KEY and MIZAN_SEAL_KEY are the same key: one that signs must not decrypt"
        )
    problems.extend(_code_sender_problems(settings))
    if settings.environment is Environment.PRODUCTION and not problems:
        problems.extend(_production_problems(settings))
    return problems


def _code_sender_problems(settings: Settings) -> list[str]:
    if settings.code_sender is CodeSenderKind.FILE and settings.code_file is None:
        return ["MIZAN_CODE_SENDER=file needs MIZAN_CODE_FILE"]
    if settings.code_sender is CodeSenderKind.WEBHOOK and (
        settings.code_webhook_url is None or settings.code_webhook_secret is None
    ):
        return ["MIZAN_CODE_SENDER=webhook needs MIZAN_CODE_WEBHOOK_URL and MIZAN_CODE_WEBHOOK_SECRET"]
    if settings.environment is not Environment.PRODUCTION:
        return []
    if settings.code_sender in (CodeSenderKind.CONSOLE, CodeSenderKind.FILE):
        return [
            f"MIZAN_CODE_SENDER={settings.code_sender} shows members' codes to whoever runs Mizan: production needs webhook"
        ]
    if settings.code_sender is CodeSenderKind.WEBHOOK and not (settings.code_webhook_url or "").startswith(
        "https://"
    ):
        return ["MIZAN_CODE_WEBHOOK_URL must be https:// in production"]
    return []


def _production_problems(settings: Settings) -> list[str]:
    problems: list[str] = []
    for name in ("master_key", "seal_key"):
        if any(text.startswith(SANDBOX_PREFIX) for text in settings.key_texts(name)):
            problems.append(
                f"MIZAN_{name.upper()} is a sandbox secret ({SANDBOX_PREFIX}…): generate one for production"
            )
    if not settings.public_url.startswith("https://"):
        problems.append("MIZAN_PUBLIC_URL must be https:// in production")
    if settings.app_page:
        problems.append("MIZAN_APP_PAGE shows any member to anybody: it is for the sandbox")
    if settings.event_loopback:
        problems.append("MIZAN_EVENT_LOOPBACK lets partners call this machine: it is for the sandbox")
    if settings.oidc_issuer is not None and not settings.oidc_issuer.startswith("https://"):
        problems.append("MIZAN_OIDC_ISSUER must be https:// in production")
    if not settings.embedded:
        for name in ("worker", "sealer", "auditor"):
            if getattr(settings, f"database_url_{name}") is None:
                problems.append(f"MIZAN_DATABASE_URL_{name.upper()} is missing")
    roles = [
        url.get_secret_value()
        for url in (
            settings.database_url,
            settings.database_url_worker,
            settings.database_url_sealer,
            settings.database_url_auditor,
        )
        if url is not None
    ]
    users = [make_url(url).username for url in roles]
    if len(set(users)) < len(users):
        problems.append("two MIZAN_DATABASE_URL… name the same role: each part of Mizan needs its own")
    if "postgres" in users or "mizan_owner" in users:
        problems.append(
            "the API, workers, sealer and auditor must not connect as the owner or as a superuser"
        )
    return problems
