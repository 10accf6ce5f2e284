"""Commands that show the state of an installation and check it."""

import asyncio
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.clients.event_stream import Level, event_stream
from toolbus_cli.clients.guard_alarms import open_failures
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import Place, find, joined
from toolbus_cli.launcher.engines import nats_binary, valkey_binary
from toolbus_cli.state_dir import State
from toolbus_cli.views.upstream_sessions import COLUMNS, table_of, usage_lines, with_sessions
from toolbus_cli.views.visible_text import printable
from toolbus_common.contracts import (
    ServersQuery,
    ServersReply,
    ServiceStatus,
    SessionsQuery,
    SessionsReply,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.client import TlsClient
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import BUCKETS, OBJECTS
from toolbus_common.service.names import SERVICES

MIN_FREE = 1 << 30  # bytes
Check = dict[str, Any]  # `what` is the name, `ok` the result, `message` the details


def status(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show the state of every service and server. The exit code is 1 if a service is not ready."""
    place = find(state_dir)
    services, servers, failures, alarms = asyncio.run(_request(place))
    missing = sorted(set(SERVICES) - {each.service for each in services})
    if as_json:
        show_json(
            {
                "endpoint": place.run.get("endpoint", ""),
                "services": [each.model_dump() for each in services],
                "missing": missing,
                "servers": servers,
                "guard_failures": failures,
                "alarms": alarms,
            }
        )
    else:
        _show(place, services, missing, servers)
        say(*(f"Guard {each}." for each in failures), *alarms)
    well = not missing and all(each.ready for each in services)
    raise typer.Exit(0 if well else 1)


async def _request(
    place: Place,
) -> tuple[list[ServiceStatus], list[dict[str, Any]], list[str], list[str]]:
    async with joined(place) as bus:
        queries = RequestReply(OPERATOR, bus)
        services = await queries.request_all(wanted=SERVICES)
        try:
            servers = list((await queries.request(ServersQuery(), ServersReply)).servers)
            servers = with_sessions(
                servers, await queries.request_each(SessionsQuery(), SessionsReply)
            )
        except ToolbusError:
            servers = []  # no executor is running; the table of services shows it
        stream = await event_stream(bus)
        alarms = [f"Event stream: {stream[0]}."] if stream and stream[1] is not Level.OK else []
        return services, servers, await open_failures(queries) or [], alarms


def _show(
    place: Place, services: list[ServiceStatus], missing: list[str], servers: list[dict[str, Any]]
) -> None:
    if "endpoint" in place.run:
        say(f"Endpoint {place.run['endpoint']}", "")
    rows = [
        (
            each.service,
            "ready" if each.ready else f"not ready: {each.reason or 'no reason given'}",
            str(each.pid),
            _span(time.time() - each.since),
            ", ".join(f"{name}={value}" for name, value in each.details.items()),
        )
        for each in services
    ]
    rows += [(service, "not running", "", "", "") for service in missing]
    show_table(("service", "state", "pid", "since", "details"), rows, "No service responded.")
    say("")
    _show_servers(servers)


def _show_servers(servers: list[dict[str, Any]]) -> None:
    columns = (
        "name", "state", "version", "tools", "quarantined", "suspicious", "breaker", "in_flight",
        "last_failure",
    )  # fmt: skip
    table = [
        [(server | _state(server)).get(column, "") for column in columns] for server in servers
    ]
    show_table(("server", *columns[1:]), table, "No server is configured.")
    faults = [(server["name"], fault) for server in servers for fault in faults_of(server)]
    if faults:
        say("")
    for name, fault in faults:
        say(printable(f"{name}: {fault}"))
    if held := table_of(servers, _span):
        say("")
        show_table(COLUMNS, held, "")
        for message in usage_lines(servers):
            say(message)
    if lacking := not_held(servers):
        say("")
        say(lacking)


def _state(server: dict[str, Any]) -> dict[str, str]:
    """Return a server's state. An operator's drain takes precedence over the server's own state."""
    if not server.get("drained"):
        return {"state": "idle"} if server.get("idle") else {}
    left = server.get("in_flight", 0) + server.get("waiting", 0)
    return {"state": "draining" if left else "drained"}


def faults_of(server: dict[str, Any]) -> Iterator[str]:
    """Yield the problems of a server, one message each."""
    if server.get("lost_at"):
        shown = "; its last known tools are listed" if server["state"] == "stale" else ""
        span = _span(time.time() - server["lost_at"])
        yield f"The server has been unreachable for {span}{shown}."
    if failures := server.get("failures"):
        times = (f"{each['code']} {_span(time.time() - each['at'])} ago" for each in failures)
        yield f"Recent calls failed: {', '.join(times)}."
    probe = server.get("probe")
    if probe and not probe["ok"]:
        ago = _span(time.time() - probe["at"])
        yield f"The health probe {ago} ago failed: {probe['reason']}"
    for replica in server.get("replicas", ()):
        yield from _faults_of_replica(replica)
    yield from _refused(server)
    yield from _lost_of(server)
    for item, is_so in (("dropped", "is hidden"), ("repaired", "was repaired")):
        if found := server.get(item, {}):
            name, why = next(iter(found.items()))
            all_of_them = "see 'toolbus tools --quarantined'"
            others = f"; and {len(found) - 1} more, {all_of_them}" if len(found) > 1 else ""
            yield f"{name} {is_so}: {why}{others}"


def _refused(server: dict[str, Any]) -> Iterator[str]:
    """Yield denied hosts and files, and the configuration line that allows the files."""
    if hosts := server.get("denied_hosts"):
        most_denied = sorted(hosts, key=hosts.__getitem__, reverse=True)[:5]
        yield f"Denied connections to hosts that are not configured: {', '.join(most_denied)}"
    files = server.get("denied_files", {})
    for kind, verb in (("read", "read"), ("write", "write")):
        paths = [path for path in files if files[path] == kind][:5]
        if paths:
            line = f"servers.{server['name']}.files: {{{kind}: [{', '.join(paths)}]}}"
            yield f"The arguments name files that the server may not {verb}; to allow this: {line}"


def not_held(servers: list[dict[str, Any]]) -> str:
    """Return a message with the isolation measures that this machine lacks; empty if none."""
    every = (held.items() for held in (each.get("isolation", {}) for each in servers))
    result = dict.fromkeys(what for each in every for what, is_so in each if not is_so)
    if not result:
        return ""
    why = (f"{what} ({_LACKS[what]})" if what in _LACKS else what for what in result)
    return f"This machine cannot isolate server processes by: {', '.join(why)}."


# The reason for which a machine cannot enforce an isolation measure.
_LACKS = {
    "own files": "no namespaces; Landlock restricts files instead",
    "own processes": "no namespaces",
    "own user": "the executor is not root, or cannot change users",
    "own /proc": "no namespaces, or parts of /proc are masked",
    "size of home and /tmp": "no namespaces",
    "signals": "needs Linux 6.12",
    "abstract sockets": "needs Linux 6.12",
    "number of processes": "needs a user of its own, or TOOLBUS_CGROUP",
    "memory of all together": "only each process has a limit; needs TOOLBUS_CGROUP",
}


def _lost_of(server: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each failed list, and one for dropped messages."""
    for method, why in server.get("failed_lists", {}).items():
        yield f"{method} fails: {why}"
    if dropped := server.get("dropped_messages"):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
        yield f"Messages that belong to no running call were dropped: {counts}."


def _faults_of_replica(replica: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons why a replica receives no calls."""
    name, state = replica["replica"], replica["state"]
    if state != "active":
        why = f": {replica['reason']}" if replica["reason"] else ""
        yield f"Replica {name} is {state}{why}"
    if replica["differs"]:
        some = ", ".join(replica["differs"][:5])
        more = ", …" if len(replica["differs"]) > 5 else ""  # noqa: PLR2004
        why = "most replicas have other definitions of these tools."
        yield f"Replica {name} gets no calls of {some}{more}: {why}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def doctor(
    *,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="The file to check; default: ./toolbus.yaml."),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Check for common problems and suggest fixes."""
    checks = [*_machine(), *_files(state_dir, config), *asyncio.run(_installation(state_dir))]
    if as_json:
        show_json(checks)
    else:
        for check in checks:
            mark = "WARN" if check["warning"] else "ok  " if check["ok"] else "BAD "
            say(f"{mark} {check['what']}: {check['message']}")
    raise typer.Exit(0 if all(check["ok"] for check in checks) else 1)


def _check(what: str, message: str, *, ok: bool = True, warning: bool = False) -> Check:
    return {"what": what, "ok": ok, "warning": warning, "message": message}


def _machine() -> Iterator[Check]:
    yield _check("python", f"{sys.version.split()[0]} at {sys.executable}")
    if _has_servers():
        return
    for name, find_binary in (("nats-server", nats_binary), ("valkey-server", valkey_binary)):
        try:
            yield _check(name, find_binary())
        except CommandError as error:
            yield _check(name, error.message, ok=False)


def _has_servers() -> bool:
    """Return whether NATS is a server of its own, so that this machine runs no engine."""
    return "TOOLBUS_NATS_URL" in os.environ


def _files(state_dir: Path, config: Path | None) -> Iterator[Check]:
    if state_dir.exists():
        mode = stat.S_IMODE(state_dir.stat().st_mode)
        private = not mode & 0o077
        fix = "" if private else f"; other users can read it: run 'chmod 700 {state_dir}'"
        message = f"{state_dir}, mode {mode:o}{fix}"
        # Beside servers, it contains only files that their owner alone can read.
        ok = private or _has_servers()
        yield _check("state directory", message, ok=ok, warning=ok and not private)
        free = shutil.disk_usage(state_dir).free
        enough = free >= MIN_FREE
        fix = "" if enough else "; free disk space: calls are denied if events cannot be stored"
        yield _check("disk", f"{free / (1 << 30):.1f} GiB free{fix}", ok=enough)
    path = config or Path("toolbus.yaml")
    if config is not None or path.exists():
        yield _configuration(path)


def _configuration(path: Path) -> Check:
    try:
        loaded = load_file(path, os.environ)
    except CommandError as error:
        return _check("configuration", error.message, ok=False)
    warnings = [f"line {warning.line}: {warning}" for warning in loaded.warnings]
    return _check("configuration", "; ".join([f"{path} is valid", *warnings]))


async def _installation(state_dir: Path) -> list[Check]:
    if not (State(state_dir).running() or _has_servers()):
        return [_check("installation", f"no Toolbus runs on {state_dir}; 'toolbus up' starts one")]
    try:
        async with joined(find(state_dir)) as bus:
            how = ", with TLS" if isinstance(bus.client, TlsClient) else ""
            return [_check("bus", f"connected as operator{how}"), *await _looked_at(bus)]
    except CommandError as error:
        return [_check("bus", error.message, ok=False)]


async def _looked_at(bus: Bus) -> list[Check]:
    checks = []
    try:
        for bucket in BUCKETS:
            await bus.bucket(bucket.bucket)
        for name in OBJECTS:
            await Objects.opened(bus, name)
        checks.append(_check("buckets", "all exist"))
    except ToolbusError as error:
        checks.append(_check("buckets", f"{error.reason}; run 'toolbus provision'", ok=False))
    queries = RequestReply(OPERATOR, bus)
    reply = await queries.request_all(wanted=SERVICES)
    for service in SERVICES:
        mine = [status for status in reply if status.service == service]
        reasons = {status.reason for status in mine if not status.ready}
        for fault in ("person_keys", "configuration"):
            reasons |= {status.details.get(fault, "") for status in mine} - {""}
        message = "; ".join(sorted(reasons)) if mine else "not running; 'toolbus run' starts it"
        ready = bool(mine) and not reasons
        checks.append(_check(f"service {service}", "ready" if ready else message, ok=ready))
    if (stream := await event_stream(bus)) is not None:
        text, level = stream
        ok, warning = level is not Level.BAD, level is Level.WARNING
        checks.append(_check("event stream", text, ok=ok, warning=warning))
    failures = await open_failures(queries)
    if failures is not None:
        message = "; ".join(failures) or "none failed open in the last hour"
        checks.append(_check("guards", message, ok=not failures))
    return checks
