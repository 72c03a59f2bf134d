"""No sender: a production deployment that configured none sends nothing, and says so."""

from products.members.challenges import CodeNotSent


class NobodySender:
    """Sends nothing."""

    def send(self, to: str, text: str, language: str) -> None:  # noqa: ARG002  the port's shape
        """Refuse. Raises `CodeNotSent`."""
        raise CodeNotSent("not_configured")
