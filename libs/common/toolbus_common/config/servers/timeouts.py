"""Timeouts of calls: maximum time without progress, and maximum total time."""

from typing import NamedTuple

from toolbus_common.config.servers.server import Server

DEFAULT_IDLE, DEFAULT_TOTAL = 60.0, 600.0  # seconds
WAIT_SECONDS = 30.0  # additional time to wait for a concurrency slot or an approval


class Timeouts(NamedTuple):
    """Maximum duration of a call in seconds: `idle` without progress, `total` with progress."""

    idle: float
    total: float


DEFAULT = Timeouts(DEFAULT_IDLE, DEFAULT_TOTAL)


def timeouts_of(server: Server, tool: str = "") -> Timeouts:
    """Return the timeouts of a tool; without a tool, of all other requests to the server."""
    view = server.tools.get(tool)
    idle, total = server.timeout, server.max_total_timeout
    if view is not None:
        idle, total = view.timeout or idle, view.max_total_timeout or total
    if total is None:
        total = DEFAULT_TOTAL
    return Timeouts(idle, max(idle, total))


def deadline_of(server: Server | None, tool: str, now: float) -> float:
    """Return the first deadline of a call that starts now. Progress can extend it later."""
    times = timeouts_of(server, tool) if server is not None else DEFAULT
    return now + times.idle + WAIT_SECONDS
