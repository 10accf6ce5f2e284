"""Limits of one HTTP listener."""

import logging
import resource
from dataclasses import dataclass, field

from toolbus_common.http_server.proxy_addresses import Proxies, is_loopback

log = logging.getLogger(__name__)

OTHER_FILES = 512  # descriptors that a process needs in addition to client connections
FEWEST = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of connections and requests. Sizes are in bytes and times in seconds.

    `head` limits the total size of a request's line, headers, chunk extensions and trailers.
    `idle_seconds` is the time for which a connection stays open after a response. `write_seconds`
    is the time for which a client can leave a response unread. `connections` limits the open
    connections of the listener. `per_address` limits the open connections of one client. The
    connections of a configured proxy are shared, so behind a proxy `per_address` limits the running
    requests of one client.
    """

    head: int = 32 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 15.0
    write_seconds: float = 30.0
    connections: int = 10_000
    per_address: int = 2_000
    per_loopback: int = 10_000  # as `per_address`; local agents share this address
    proxies: Proxies = field(default_factory=Proxies)

    def max_for(self, address: str) -> int:
        """Return the limit for one client address."""
        return self.per_loopback if is_loopback(address) else self.per_address


def descriptors_for(connections: int) -> int:
    """Raise the limit of open files for this many connections.

    Return the number of connections that are possible.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = connections if soft == resource.RLIM_INFINITY else max(FEWEST, soft - OTHER_FILES)
    if possible < connections:
        log.warning("http.connections_limited", extra={"wanted": connections, "bound": possible})
    return min(connections, possible)
