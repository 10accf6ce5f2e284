"""The kinds of upstream a declaration can ask for, and how each is made."""

import os
import re
from collections.abc import Sequence

from toolbus_common.declared import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.functions import serving
from toolbus_executor.graphql import GraphQLUpstream
from toolbus_executor.http_upstream import HttpUpstream
from toolbus_executor.isolation.container import OF_ENGINES, contained
from toolbus_executor.isolation.plan import isolation_of
from toolbus_executor.offload.spills import Spills
from toolbus_executor.openapi.upstream import OpenApiUpstream
from toolbus_executor.settings import Settings
from toolbus_executor.stdio_upstream import StdioUpstream
from toolbus_executor.upstream import News, Upstream
from toolbus_executor.way import Way
from toolbus_executor.ways import Ways

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


def kind_of(declared: Server) -> str:
    """Its kind, as `toolbus status` shows it."""
    for kind in ("openapi", "graphql", "grpc", "python", "container"):
        if getattr(declared, kind):
            return kind
    if declared.command:
        return "stdio"
    return "sse" if declared.sse else "http"


def reached(
    declared: Server,
    news: News,
    ways: Ways,
    spills: Spills | None = None,
    settings: Settings | None = None,
    name: str = "",
) -> Upstream:
    """The way to a declared server, not opened yet.

    `spills` takes what is too large to tell; `settings` and its `name` are for processes.

    Raises:
        UpstreamDeadError: a variable its declaration refers to is not set, or it names files of
            this machine that are not its to name.

    """
    if declared.is_process:
        return _process(name, declared, news, spills, settings or Settings())
    headers, way = _all(declared.headers), ways.to(declared, resolved(declared.proxy))
    if declared.openapi:
        return OpenApiUpstream(declared, headers, _all(declared.credentials), news, way, spills)
    if declared.graphql:
        return GraphQLUpstream(declared, headers, news, way)
    if declared.grpc:
        return _grpc(declared, headers, news, way)
    url, old = declared.url or declared.sse, bool(declared.sse)
    return HttpUpstream(url, headers, news, way, old=old, spills=spills)


def _process(
    name: str, declared: Server, news: News, spills: Spills | None, settings: Settings
) -> Upstream:
    passed: tuple[str, ...] = _PASSED_ON
    command: Sequence[str] = declared.command
    if declared.container:
        passed += OF_ENGINES
        command = contained(name, declared, settings)
    elif declared.python:
        command = serving(declared.python)
    environment = {each: os.environ[each] for each in passed if each in os.environ}
    environment |= _all(declared.env)
    held = isolation_of(declared, settings)
    return StdioUpstream(command, environment, declared.cwd, news, held, spills)


def _grpc(declared: Server, headers: dict[str, str], news: News, way: Way) -> Upstream:
    """The libraries are an extra: only who declares such a server needs them."""
    # Processes are begun without a fork of this one's threads: nothing to say about each.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        from toolbus_executor.grpc.upstream import GrpcUpstream  # noqa: PLC0415
    except ImportError as error:
        raise UpstreamDeadError(
            f"{declared.grpc} needs what is not installed ({error.name}); where the executor runs: "
            "pip install 'toolbus[grpc]'.",
            sent=False,
        ) from error
    return GrpcUpstream(declared, headers, news, way)


def _all(values: dict[str, str]) -> dict[str, str]:
    return {name: resolved(value) for name, value in values.items()}


def resolved(value: str) -> str:
    """A declared value with its references to the environment filled in.

    Raises:
        UpstreamDeadError: a variable is not set; the message names it and no value.

    """

    def fill(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise UpstreamDeadError(
                f"The variable {match[1]} is not set for the executor; set it where it is started."
            )
        return found

    return _REFERENCE.sub(fill, value)
