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

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_cli.launcher.engines import nats_binary, valkey_binary
from toolbus_cli.remote import contexts, queries
from toolbus_cli.remote.client import request
from toolbus_cli.remote.contexts import Context
from toolbus_cli.state_dir import State
from toolbus_cli.views.upstream_sessions import COLUMNS, table_of, usage_lines
from toolbus_common.definitions.visible_text import printable
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.client import TlsClient
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.status.installation import (
    Check,
    InstallationState,
    buckets_of,
    check,
    checks_of,
    state_of,
)

MIN_FREE = 1 << 30  # bytes


def status(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show the state of every service and server. The exit code is 1 if a service is not ready."""
    if (context := contexts.chosen()) is not None:
        endpoint, state = f"{context.url}/mcp", queries.state_of(context)
    else:
        endpoint, state = asyncio.run(_local_state(state_dir))
    if as_json:
        show_json(
            {
                "endpoint": endpoint,
                "services": [each.model_dump() for each in state.services],
                "missing": state.missing,
                "servers": state.servers,
                "guard_failures": state.guard_failures,
                "alarms": state.alarms,
            }
        )
    else:
        _show(endpoint, state)
        say(*(f"Guard {each}." for each in state.guard_failures), *state.alarms)
    well = not state.missing and all(each.ready for each in state.services)
    raise typer.Exit(0 if well else 1)


async def _local_state(state_dir: Path) -> tuple[str, InstallationState]:
    place = find(state_dir)
    async with joined(place) as bus:
        state = await state_of(RequestReply(OPERATOR, bus), bus)
        return str(place.run.get("endpoint", "")), state


def _show(endpoint: str, state: InstallationState) -> None:
    if endpoint:
        say(f"Endpoint {endpoint}", "")
    rows = [
        (
            each.service,
            "ready" if each.ready else f"not ready: {each.reason or 'no reason given'}",
            str(each.pid),
            _span(time.time() - each.since),
            ", ".join(f"{name}={value}" for name, value in each.details.items()),
        )
        for each in state.services
    ]
    rows += [(service, "not running", "", "", "") for service in state.missing]
    show_table(("service", "state", "pid", "since", "details"), rows, "No service responded.")
    say("")
    _show_servers(state.servers)


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
    if (context := contexts.chosen()) is not None:
        checks = [_python(), *_configuration_file(config), *_remote(context)]
    else:
        found = asyncio.run(_installation(state_dir))
        checks = [*_machine(), *_files(state_dir), *_configuration_file(config), *found]
    if as_json:
        show_json(checks)
    else:
        for each in checks:
            mark = "WARN" if each["warning"] else "ok  " if each["ok"] else "BAD "
            say(f"{mark} {each['what']}: {printable(each['message'])}")
    raise typer.Exit(0 if all(each["ok"] for each in checks) else 1)


def _remote(context: Context) -> list[Check]:
    """Return the checks that the gateway of a context makes of its own installation."""
    administrator = request(context, "GET", "/self")
    how = ", with TLS" if context.url.startswith("https://") else ""
    message = f"connected to {context.url} as {administrator['name']}{how}"
    return [check("gateway", message), *queries.checks_of(context)]


def _python() -> Check:
    return check("python", f"{sys.version.split()[0]} at {sys.executable}")


def _machine() -> Iterator[Check]:
    yield _python()
    if _has_servers():
        return
    for name, find_binary in (("nats-server", nats_binary), ("valkey-server", valkey_binary)):
        try:
            yield check(name, find_binary())
        except CommandError as error:
            yield check(name, error.message, ok=False)


def _has_servers() -> bool:
    """Return whether NATS is an external server; this machine then runs no engine."""
    return "TOOLBUS_NATS_URL" in os.environ


def _files(state_dir: Path) -> Iterator[Check]:
    if state_dir.exists():
        mode = stat.S_IMODE(state_dir.stat().st_mode)
        private = not mode & 0o077
        fix = "" if private else f"; other users can read it: run 'chmod 700 {state_dir}'"
        message = f"{state_dir}, mode {mode:o}{fix}"
        # With external servers, it contains only files that their owner alone can read.
        ok = private or _has_servers()
        yield check("state directory", message, ok=ok, warning=ok and not private)
        free = shutil.disk_usage(state_dir).free
        enough = free >= MIN_FREE
        fix = "" if enough else "; free disk space: calls are denied if events cannot be stored"
        yield check("disk", f"{free / (1 << 30):.1f} GiB free{fix}", ok=enough)


def _configuration_file(config: Path | None) -> Iterator[Check]:
    path = config or Path("toolbus.yaml")
    if config is not None or path.exists():
        yield _configuration(path)


def _configuration(path: Path) -> Check:
    try:
        loaded = load_file(path, os.environ)
    except CommandError as error:
        return check("configuration", error.message, ok=False)
    warnings = [f"line {warning.line}: {warning}" for warning in loaded.warnings]
    return check("configuration", "; ".join([f"{path} is valid", *warnings]))


async def _installation(state_dir: Path) -> list[Check]:
    if not (State(state_dir).running() or _has_servers()):
        return [check("installation", f"no Toolbus runs on {state_dir}; 'toolbus up' starts one")]
    try:
        async with joined(find(state_dir)) as bus:
            how = ", with TLS" if isinstance(bus.client, TlsClient) else ""
            return [
                check("bus", f"connected as operator{how}"),
                await buckets_of(bus),
                *await checks_of(RequestReply(OPERATOR, bus), bus),
            ]
    except CommandError as error:
        return [check("bus", error.message, ok=False)]
