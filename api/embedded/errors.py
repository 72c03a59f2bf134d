"""What can go wrong with the embedded servers."""

from ledger.errors import Unavailable


class ServersUnavailable(Unavailable):
    """An embedded server can't be started, or doesn't answer; the detail says what to do."""

    code = "servers_unavailable"
