"""Factory of the upstream for a configured server of any kind."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from toolbus_common.config import Server
from toolbus_common.config.servers.isolation import Hosts
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.crypto.key_file import KeyFiles
from toolbus_common.egress import Allowed
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.secrets import Values, filled
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.credentials.token_file import TokenFile
from toolbus_executor.isolation.container import ENGINE_VARIABLES, container_command, denied_hint
from toolbus_executor.isolation.network.egress_proxy import EgressProxy
from toolbus_executor.isolation.plan import Isolation, isolation_of
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.isolation.visible_paths import CERTIFICATES
from toolbus_executor.known_secrets import PIECE, KnownSecrets
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.a2a import A2aUpstream
from toolbus_executor.upstreams.a2a.handles import Handles
from toolbus_executor.upstreams.base import Upstream, UpstreamCallbacks
from toolbus_executor.upstreams.graphql import GraphQLUpstream
from toolbus_executor.upstreams.mcp.http import HttpUpstream, Spoken
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.oauth.token_process import TokenProcess
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream
from toolbus_executor.upstreams.process.python_functions import serving

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", *CERTIFICATES)


def kind_of(declared: Server) -> str:
    """Return the kind of a server, for `toolbus status`."""
    for kind in ("openapi", "graphql", "grpc", "a2a", "python", "container"):
        if getattr(declared, kind):
            return kind
    if declared.command:
        return "stdio"
    return "sse" if declared.sse else "http"


def reached(  # noqa: PLR0913 - only this function knows every kind
    declared: Server,
    news: UpstreamCallbacks,
    ways: DialerFactory,
    found: Values,
    spills: SpillRegistry | None = None,
    *,
    settings: Settings | None = None,
    name: str = "",
    bearer: Bearer | None = None,
) -> Upstream:
    """Return the upstream for a configured server. It is not connected yet.

    Args:
        declared: the server's configuration.
        news: the callbacks for messages outside of calls.
        ways: creates the dialer.
        found: the values of secret references.
        spills: stores results that are too large to return.
        settings: the settings of the executor, used for processes.
        name: the server's name.
        bearer: the server's token, if it requires OAuth.

    Raises:
        UpstreamDeadError: the configuration contains local files that only an operator may
            configure.

    """
    if declared.is_process:
        own = settings or Settings()
        program = _Program(name, declared, news, ways, found, spills, own)
        return program.started() if bearer is None else program.with_token(bearer)
    headers, way = (
        _resolved(declared.headers, found),
        ways.to(declared, filled(declared.proxy, found)),
    )
    if declared.openapi:
        credentials = _resolved(declared.credentials, found)
        return OpenApiUpstream(declared, headers, credentials, news, way, spills, bearer)
    if declared.graphql:
        return GraphQLUpstream(declared, headers, news, way, bearer)
    if declared.a2a:
        handles = Handles(KeyFiles((settings or Settings()).people_key_file).current, name)
        return A2aUpstream(declared, headers, news, way, handles, bearer)
    if declared.grpc:
        return _grpc(declared, headers, news, way, bearer)
    protocol: Spoken = "sse" if declared.sse else declared.protocol
    url = declared.url or declared.sse
    return HttpUpstream(url, headers, news, way, protocol=protocol, spills=spills, bearer=bearer)


@dataclass(frozen=True, slots=True)
class _Program:
    """A server that is a process, with all inputs for its start."""

    name: str
    declared: Server
    news: UpstreamCallbacks
    ways: DialerFactory
    found: Values
    spills: SpillRegistry | None
    settings: Settings

    def with_token(self, bearer: Bearer) -> TokenProcess:
        """Return an upstream whose process receives a token, in its environment or in a file."""
        oauth = self.declared.oauth
        assert oauth is not None  # noqa: S101 - a bearer implies the configuration

        def start(token: str) -> tuple[StdioUpstream, TokenFile | None]:
            if not oauth.file:
                return self.started(token), None
            file = TokenFile(oauth.file, self.settings.state_dir)
            file.write(token)
            return self.started(token, (str(file.directory), file.below_home)), file

        one_account = oauth.tokens == "shared" or bool(bearer.user)
        return TokenProcess(bearer, start, one_account=one_account)

    def started(self, token: str = "", place: tuple[str, str] = ("", "")) -> StdioUpstream:
        """Return an upstream whose process is not started yet.

        `place` contains the directory of the process's token file, and the path of this directory
        relative to the home that the process sees.
        """
        passed: tuple[str, ...] = _PASSED_ON
        declared = self.declared
        command: Sequence[str] = declared.command
        if declared.container:
            passed += ("HOME", "TMPDIR", *ENGINE_VARIABLES)
            command = container_command(self.name, declared, self.settings)
        elif declared.python:
            command = serving(declared.python)
        environment = {each: os.environ[each] for each in passed if each in os.environ}
        environment |= _resolved(declared.env, self.found)
        if token and declared.oauth is not None and declared.oauth.env:
            environment[declared.oauth.env] = token
        errors = partial(
            StandardError, self.name, secrets_of(declared, self.found, token), denied_hint(declared)
        )
        held = replace(self._isolation(), token=place)
        made = StdioUpstream(
            command, environment, declared.cwd, self.news, held, self.spills, errors
        )
        made.protocol = declared.protocol
        return made

    def _isolation(self) -> Isolation:
        """Return the isolation.

        If the configuration lists hosts, the isolation has an egress proxy.
        """
        held = isolation_of(self.declared, self.settings, self.name)
        if not isinstance(self.declared.network, Hosts):
            return held
        hosts = Allowed.of(" ".join(self.declared.network.hosts))
        return replace(held, gate=EgressProxy(self.name, hosts, self.ways.to(self.declared, "")))


def _grpc(
    declared: Server,
    headers: dict[str, str],
    news: UpstreamCallbacks,
    way: Dialer,
    bearer: Bearer | None,
) -> Upstream:
    """Return a gRPC upstream. Its libraries are an optional dependency."""
    # The executor does not fork from threads, so gRPC's warnings about forks are not useful.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        from toolbus_executor.upstreams.grpc.upstream import GrpcUpstream  # noqa: PLC0415
    except ImportError as error:
        raise UpstreamDeadError(
            f"{declared.grpc} needs a missing package ({error.name}); install it on the executor's "
            "host: pip install 'toolbus[grpc]'.",
            sent=False,
        ) from error
    return GrpcUpstream(declared, headers, news, way, bearer)


def secrets_of(declared: Server, found: Values, token: str = "") -> KnownSecrets:
    """Return all secrets that the server receives: values of references, and literal values."""
    given = (filled(text, found) for text in texts_of(declared))
    return KnownSecrets((*found.values(), token, *(each for each in given if len(each) >= PIECE)))


def texts_of(declared: Server) -> list[str]:
    """Return the configuration values that can contain references to secrets."""
    values = (getattr(declared, each).values() for each in CREDENTIALS)
    return [declared.proxy, *chain.from_iterable(values)]


def _resolved(values: dict[str, str], found: Values) -> dict[str, str]:
    return {name: filled(value, found) for name, value in values.items()}
