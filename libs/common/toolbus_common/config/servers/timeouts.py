"""Timeouts of calls: without progress, and in total."""

from typing import NamedTuple

from toolbus_common.config.servers.server import Server

DEFAULT_IDLE, DEFAULT_TOTAL = 60.0, 600.0  # seconds
WAIT_SECONDS = 30.0  # granted in addition, for a concurrency slot or for an approval


class Timeouts(NamedTuple):
    """Maximum seconds of a call: `idle` without progress, `total` with progress."""

    idle: float
    total: float


DEFAULT = Timeouts(DEFAULT_IDLE, DEFAULT_TOTAL)


def timeouts_of(server: Server, tool: str = "") -> Timeouts:
    """Return the timeouts of one tool of a server; without a tool, of its other requests."""
    view = server.tools.get(tool)
    idle, total = server.timeout, server.max_total_timeout
    if view is not None:
        idle, total = view.timeout or idle, view.max_total_timeout or total
    if total is None:
        total = DEFAULT_TOTAL
    return Timeouts(idle, max(idle, total))


def deadline_of(server: Server | None, tool: str, now: float) -> float:
    """Return the first deadline of a call made now; progress extends it (`call.extended`)."""
    times = timeouts_of(server, tool) if server is not None else DEFAULT
    return now + times.idle + WAIT_SECONDS
