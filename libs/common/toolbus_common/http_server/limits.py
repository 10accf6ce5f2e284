"""The limits of one HTTP listener."""

import logging
import resource
from dataclasses import dataclass, field

from toolbus_common.http_server.proxy_addresses import Proxies, is_loopback

log = logging.getLogger(__name__)

OTHER_FILES = 512  # descriptors a process needs besides its clients' connections
FEWEST = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of connections and requests; sizes in bytes, times in seconds.

    `head` limits the total size of a request's line, headers, chunk extensions and trailers.
    `idle_seconds` is how long a connection is kept open after a response, `write_seconds` how long
    a client may leave a response unread. `connections` limits the open connections of the listener.
    `per_address` limits the open connections of one client; behind a configured proxy, whose
    connections are shared, it limits the client's requests in progress.
    """

    head: int = 32 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 15.0
    write_seconds: float = 30.0
    connections: int = 10_000
    per_address: int = 2_000
    per_loopback: int = 10_000  # limit of the loopback address, which many local agents share
    proxies: Proxies = field(default_factory=Proxies)

    def max_for(self, address: str) -> int:
        """Return the limit of one address."""
        return self.per_loopback if is_loopback(address) else self.per_address


def descriptors_for(connections: int) -> int:
    """Raise the file limit for this many connections; return how many are possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = connections if soft == resource.RLIM_INFINITY else max(FEWEST, soft - OTHER_FILES)
    if possible < connections:
        log.warning("http.connections_limited", extra={"wanted": connections, "bound": possible})
    return min(connections, possible)
