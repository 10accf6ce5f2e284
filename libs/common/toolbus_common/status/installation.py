"""What `toolbus status` and `doctor` show, read from the bus: here, or by policy for /api."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError

from toolbus_common.contracts import (
    ServersQuery,
    ServersReply,
    ServiceStatus,
    SessionsQuery,
    SessionsReply,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.snapshots.stream_snapshot import streams_of
from toolbus_common.nats.topology import BUCKETS, OBJECTS
from toolbus_common.service.names import SERVICES
from toolbus_common.status.event_stream import Level, event_stream
from toolbus_common.status.guard_alarms import open_failures
from toolbus_common.status.sessions import with_sessions

STREAM_SECONDS = 5.0
Check = dict[str, Any]  # `what` is the name, `ok` the result, `message` the details


@dataclass(frozen=True, slots=True)
class InstallationState:
    """The services and servers of an installation, and its alarms.

    `guard_failures` has a message for each guard that allowed calls without a check.
    """

    services: list[ServiceStatus]
    servers: list[dict[str, Any]]
    guard_failures: list[str]
    alarms: list[str]

    @property
    def missing(self) -> list[str]:
        """The services of which no replica replied."""
        return sorted(set(SERVICES) - {each.service for each in self.services})


async def state_of(queries: RequestReply, bus: Bus) -> InstallationState:
    """Return the state of the installation."""
    services, servers, stream, failures = await asyncio.gather(
        queries.request_all(wanted=SERVICES),
        _servers(queries),
        event_stream(bus),
        open_failures(queries),
    )
    alarms = [f"Event stream: {stream[0]}."] if stream and stream[1] is not Level.OK else []
    return InstallationState(services, servers, failures or [], alarms)


async def _servers(queries: RequestReply) -> list[dict[str, Any]]:
    """Return the servers with their sessions; none if no executor is running."""

    async def rows() -> list[dict[str, Any]]:
        try:
            return list((await queries.request(ServersQuery(), ServersReply)).servers)
        except ToolbusError:
            return []  # the list of services shows it

    servers, sessions = await asyncio.gather(
        rows(), queries.request_each(SessionsQuery(), SessionsReply)
    )
    return with_sessions(servers, sessions)


async def checks_of(queries: RequestReply, bus: Bus) -> list[Check]:
    """Return the checks of services, stream of events and guards."""
    services, stream, failures = await asyncio.gather(
        queries.request_all(wanted=SERVICES), event_stream(bus), open_failures(queries)
    )
    checks = list(_services(services))
    if stream is not None:
        text, level = stream
        ok, warning = level is not Level.BAD, level is Level.WARNING
        checks.append(check("event stream", text, ok=ok, warning=warning))
    if failures is not None:
        message = "; ".join(failures) or "none failed open in the last hour"
        checks.append(check("guards", message, ok=not failures))
    return checks


def check(what: str, message: str, *, ok: bool = True, warning: bool = False) -> Check:
    """Return the result of one check."""
    return {"what": what, "ok": ok, "warning": warning, "message": message}


async def buckets_of(bus: Bus) -> Check:
    """Return the check whether all buckets exist. Only operators may list streams."""
    wanted = [f"KV_{each.bucket}" for each in BUCKETS] + [f"OBJ_{name}" for name in OBJECTS]
    try:
        async with asyncio.timeout(STREAM_SECONDS):
            found = await streams_of(bus)
    except (ToolbusError, NatsError, TimeoutError) as error:
        reason = str(error) or f"no reply in {STREAM_SECONDS:g} s"
        return check("buckets", f"cannot be listed: {reason}; check the bus", ok=False)
    if missing := [each.partition("_")[2] for each in wanted if each not in found]:
        return check("buckets", f"{', '.join(missing)} missing; run 'toolbus provision'", ok=False)
    return check("buckets", "all exist")


def _services(reply: list[ServiceStatus]) -> Iterator[Check]:
    for service in SERVICES:
        mine = [status for status in reply if status.service == service]
        reasons = {status.reason for status in mine if not status.ready}
        for name in ("person_keys", "configuration", "certificate"):
            reasons |= {status.details.get(name, "") for status in mine} - {""}
        message = "; ".join(sorted(reasons)) if mine else "not running; 'toolbus run' starts it"
        ready = bool(mine) and not reasons
        yield check(f"service {service}", "ready" if ready else message, ok=ready)
