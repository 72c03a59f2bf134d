"""A program that owns embedded servers until it is told to end: `embedded_owner.py DATA_DIR [UID]`, for tests to kill.

It prints one line of JSON when the servers are ready. With UID it becomes that user first, having imported everything that
it needs: a virtual environment of root's may be out of that user's reach.
"""

import codecs
import json
import os
import pwd
import sys
import time
from pathlib import Path

import psycopg
import redis

from api import embedded
from api.settings import load


def main() -> None:
    """Run the servers and wait."""
    data_dir = Path(sys.argv[1])
    if len(sys.argv) > 2:
        account = pwd.getpwuid(int(sys.argv[2]))
        for name in ("ascii", "idna", "latin_1"):
            codecs.lookup(name)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    with embedded.servers(load(data_dir=data_dir, _env_file=None), linger_seconds=0) as servers:
        with psycopg.connect(servers.url("mizan_api").replace("+psycopg", "")) as connection:
            connection.execute("select 1")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.ping()
        ready = {
            "owner": servers.owner,
            "home": str(servers.places.home),
            "sockets": str(servers.places.sockets),
        }
        if servers.owner:
            ready |= {"postgres": servers.pid("postgres"), "valkey": servers.pid("valkey")}
        print(json.dumps(ready | {"programs": str(servers.places.binaries.postgres)}), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
