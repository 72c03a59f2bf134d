"""What those who run Mizan see of it: logs, metrics and traces, none of which ever holds personal data or a secret."""

from typing import TYPE_CHECKING

from api.settings import Settings

if TYPE_CHECKING:
    from api.observability.traces import Traces


def tracing(settings: Settings, process: str) -> "Traces | None":
    """The traces that the settings ask for; call it after forking. Without them the library isn't even imported."""
    if settings.traces_url is None:
        return None
    from api.observability.traces import Traces

    return Traces(settings, process, settings.traces_url)
