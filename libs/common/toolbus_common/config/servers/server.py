"""Upstream servers, and the settings of their tools."""

import json
import re
from hashlib import sha256
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.access.levels import Content
from toolbus_common.config.base import Name, Patterns
from toolbus_common.config.flow import FlowLabels
from toolbus_common.config.servers.endpoints import (
    Operations,
    Replica,
    as_http,
    grpc_url,
    http_url,
    probe_path,
    proxy_url,
)
from toolbus_common.config.servers.identity import ServerIdentity
from toolbus_common.config.servers.isolation import (
    Container,
    Files,
    Hosts,
    Limits,
    Network,
    network_of,
)
from toolbus_common.config.servers.oauth import ServerOAuth, misfit
from toolbus_common.config.servers.results import Results
from toolbus_common.config.servers.sampling import Sampling
from toolbus_common.config.servers.tools import LONGEST_CALL, Misfits, ToolView

_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
Validation = Literal["report", "strict", "arguments", "results", "both", "none"]
Sessions = Literal["principal", "shared", "client"]
Protocol = Literal["auto", "modern", "legacy"]
PROTOCOLS = (
    "auto (each caller's own family if the server supports both), modern (stateless, 2026-07-28) "
    "or legacy (with a handshake, 2025-11-25 and before)"
)
CREDENTIALS = ("headers", "env", "credentials")  # fields whose values can be secrets
# Fields that decide where credentials are sent.
FILES = ("ca", "certificate", "key")  # paths on the executor's machine
DESTINATION = (
    "url", "replicas", "sse", "command", "cwd", "openapi", "base_url", "graphql", "grpc", "a2a",
    "python", "container", "proxy", "oauth", *FILES,
)  # fmt: skip
BOUNDS = ("limits", "files", "network", "namespaces")  # isolate the process with the credentials
MAX_REPLICAS = 16
LARGEST_LIST = 6 << 20  # bytes; the lists of a server are one entry of a bucket
MAX_SESSIONS = {True: 32, False: 1024}  # default for processes, and for connections
_KINDS = ("url", "replicas", "sse", "openapi", "graphql", "grpc", "a2a", "command", "python",
          "container")  # fmt: skip
_OF_SESSIONS = ("idle", "sessions", "max_sessions", "max_sessions_per_principal", "sampling")
_OF_OPENAPI = ("credentials", "probe_path")
_OF_DESCRIBED = ("operations", "refresh")


class Server(FlowLabels):
    """An upstream server: MCP (`url`, `replicas`, `sse`, `command`) or a server of another kind.

    `url` uses streamable HTTP, `command` uses stdio, and `sse` uses HTTP+SSE. `replicas` are
    several URLs of one server, with weights. A health probe is sent after `probe` idle seconds; 0
    disables probes.
    `openapi` is the URL or file of an OpenAPI document. Its operations use `base_url`, and the
    values in `credentials` for its security schemes (`user:password` for basic authentication).
    `probe_path` is the path for health probes. `graphql` is the URL of a GraphQL API. `grpc` is a
    server with reflection, as grpc://host:port, or grpcs:// over TLS. `a2a` is the URL of an agent,
    or of its card. For all four, `operations` selects the tools, and the description is read again
    every `refresh` seconds. `python` names functions as `package.module:function`, imported from
    `cwd`. `container` is an image with a digest, whose program uses MCP on stdio.
    `timeout` limits a call without progress, in seconds. Each progress notification restarts it, up
    to `max_total_timeout` (600 s, or `timeout` if that is longer). `concurrency` limits the
    concurrent calls. Values of `headers`, `env`, `credentials` and `proxy` can contain references,
    `${env:NAME}`, which only the executor resolves. `list_limit` is the maximum size of all lists
    in bytes.
    `expose` restricts the tools that any key can use, by the server's own names. `definitions`
    applies to new and changed definitions: `trust` shows them, `first` pins the first listing, and
    quarantines later changes and instructions to a model; `review` (or `each`) quarantines all
    until an operator approves them. `code_mode` offers the tools only in programs or directly.
    `validation` is the reaction to arguments that do not match the schema: `report` records them in
    the call's event, `strict` (or `arguments`) rejects the call, and `none` ignores them. `results`
    and `both` reject results that do not match. `content` and `result_content` limit recording.
    `limits`, `files`, `network` and `namespaces` isolate a process (`command`, `python`,
    `container`). A process without work for `idle` seconds is stopped until the next call; 0
    disables this.
    `sessions` decides which callers share a session of a server with state: those of one
    `principal` (a user, or a key without a user), of one `client` session, or all (`shared`, a
    statement by the operator that the server has no state). `max_sessions` and
    `max_sessions_per_principal` limit the open sessions. A session is closed after `idle` seconds.
    `protocol` is the family of MCP revisions: `modern` (stateless, 2026-07-28), `legacy` (with a
    handshake, 2025-11-25 and before), or `auto` (the caller's own family if the server supports
    both).
    `proxy` is the HTTP proxy for the URL (`none` disables proxies). The PEM files `ca`,
    `certificate` and `key` are the trusted certificate authorities and the client certificate with
    its key. `oauth` configures tokens, and `identity` sends the caller's identity with each
    request. `sampling` names the model that answers the server's sampling requests. `guards` are
    names of guards that apply to all calls of this server, and to its definitions.
    """

    url: str = ""
    replicas: tuple[Replica, ...] = Field(default=(), max_length=MAX_REPLICAS)
    sse: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str = ""
    openapi: str = ""
    base_url: str = ""
    credentials: dict[str, str] = Field(default_factory=dict)
    probe_path: str = Field(default="", max_length=1024)
    operations: Operations = Operations()
    refresh: float = Field(default=300.0, ge=5, le=24 * 3600)
    graphql: str = ""
    grpc: str = ""
    a2a: str = ""
    python: tuple[str, ...] = ()
    container: Container | None = None
    idle: float = Field(default=600.0, ge=0, le=7 * 24 * 3600)
    sessions: Sessions = "principal"
    protocol: Protocol = "auto"
    max_sessions: int | None = Field(default=None, ge=1, le=100_000)
    max_sessions_per_principal: int = Field(default=16, ge=1, le=1000)
    limits: Limits = Limits()
    files: Files | None = None
    network: Network = "any"
    namespaces: bool = True
    oauth: ServerOAuth | None = None
    identity: ServerIdentity | None = None
    proxy: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    tools: dict[str, ToolView] = Field(default_factory=dict)  # by the server's own names
    expose: Patterns = ("*",)
    definitions: Literal["trust", "first", "each", "review"] = "first"
    code_mode: bool | None = None
    probe: float = Field(default=15.0, ge=0, le=3600)
    timeout: float = Field(default=60.0, gt=0, le=3600)
    max_total_timeout: float | None = Field(default=None, gt=0, le=LONGEST_CALL)
    list_limit: int = Field(default=LARGEST_LIST, ge=64 << 10, le=LARGEST_LIST)
    results: Results = Results()
    sampling: Sampling | None = None
    validation: Validation = "report"
    guards: tuple[Name, ...] = Field(default=(), max_length=64)
    content: Content | None = None
    result_content: Content | None = None
    concurrency: int = Field(default=64, ge=1, le=4096)

    @property
    def is_process(self) -> bool:
        """Whether the server is a process started by the executor."""
        return bool(self.command or self.python or self.container)

    @property
    def kind(self) -> str:
        """The name of the field that defines the kind of the server, such as `url`."""
        return next(each for each in _KINDS if getattr(self, each))

    @property
    def oauth_url(self) -> str:
        """The URL that tokens are issued for, also used to discover the authorization server."""
        oauth = self.oauth
        if oauth is not None and oauth.resource:
            return oauth.resource
        if self.replicas:
            return self.replicas[0].url
        if self.is_process:
            return oauth.issuer if oauth is not None else ""
        address = as_http(self.is_described)
        document = address if address.startswith("http") else ""
        return self.url or self.sse or self.base_url or document

    @property
    def oauth_place(self) -> str:
        """The recipient of tokens: the URL they are sent to, or the program that receives them."""
        if self.url or self.sse:
            return self.oauth_url
        if self.is_process:
            fields = self.model_dump(mode="json", include={"command", "python", "container", "cwd"})
            program = json.dumps(fields, sort_keys=True)
            return f"{self.oauth_url} {sha256(program.encode()).hexdigest()[:32]}"
        own = self.base_url or self.is_described
        return f"{self.oauth_url} {own}" if own else self.oauth_url

    @property
    def is_described(self) -> str:
        """The address of an API whose description lists the tools; empty for other servers."""
        return self.openapi or self.graphql or self.grpc or self.a2a

    @property
    def misfits(self) -> Misfits:
        """The reaction to invalid arguments. If an API is described, `report` means `strict`."""
        if self.validation in ("strict", "arguments", "both"):
            return "strict"
        if self.validation == "none":
            return "none"
        return "strict" if self.is_described and self.validation == "report" else "report"

    @property
    def has_sessions(self) -> bool:
        """Whether the server can have state between calls: a process, or MCP over HTTP."""
        return self.is_process or bool(self.url or self.sse or self.replicas)

    @property
    def session_bound(self) -> int:
        """The maximum number of open sessions in one executor."""
        return self.max_sessions or MAX_SESSIONS[self.is_process]

    @field_validator("url", "sse", "base_url", "graphql", "a2a")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return http_url(url)

    @field_validator("protocol", mode="before")
    @classmethod
    def _is_a_family(cls, protocol: Any) -> Any:
        if protocol not in get_args(Protocol):
            raise ValueError(f"must be {PROTOCOLS}")
        return protocol

    @field_validator("replicas", mode="before")
    @classmethod
    def _accepts_plain_urls(cls, replicas: Any) -> Any:
        if not isinstance(replicas, list | tuple):
            return replicas
        return tuple({"url": each} if isinstance(each, str) else each for each in replicas)

    @field_validator("replicas")
    @classmethod
    def _are_several(cls, replicas: tuple[Replica, ...]) -> tuple[Replica, ...]:
        if len({each.url for each in replicas}) < len(replicas):
            raise ValueError("names a URL twice; increase its weight instead")
        return replicas

    @field_validator("proxy")
    @classmethod
    def _has_no_plain_password(cls, proxy: str) -> str:
        return proxy_url(proxy)

    @field_validator("openapi")
    @classmethod
    def _is_document(cls, openapi: str) -> str:
        if "://" in openapi and not re.match(r"^https?://[^/\s]+", openapi):
            raise ValueError("must be a file, or a URL with http:// or https:// and a host")
        return openapi

    @field_validator("network", mode="before")
    @classmethod
    def _is_network(cls, network: Any) -> Network:
        return network_of(network)

    @field_validator("probe_path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        return probe_path(path)

    @field_validator("grpc")
    @classmethod
    def _is_grpc(cls, url: str) -> str:
        return grpc_url(url)

    @field_validator("python", mode="before")
    @classmethod
    def _is_list(cls, python: Any) -> Any:
        if isinstance(python, str):
            return (python,)
        # After this validator, strict mode treats the value as Python and would reject a list.
        return tuple(python) if isinstance(python, list) else python

    @field_validator("python")
    @classmethod
    def _are_functions(cls, python: tuple[str, ...]) -> tuple[str, ...]:
        for each in python:
            if not _FUNCTION.fullmatch(each):
                raise ValueError(f"{each[:80]!r} is not a function; write package.module:function")
        return python

    @field_validator("tools")
    @classmethod
    def _have_distinct_names(cls, tools: dict[str, ToolView]) -> dict[str, ToolView]:
        owners: dict[str, str] = {}
        for own, view in tools.items():
            if view.hidden:
                continue
            name = view.alias or own
            before = owners.setdefault(name, own)
            if before != own:
                raise ValueError(
                    f"{before} and {own} would both have the name {name}; give one of them "
                    "another alias"
                )
        return tools

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if [bool(getattr(self, each)) for each in _KINDS].count(True) != 1:
            raise ValueError(
                "needs exactly one of 'url' (streamable HTTP), 'replicas' (several URLs), "
                "'command' (stdio), 'sse' (HTTP+SSE), 'openapi' (a document), 'graphql', 'grpc', "
                "'a2a' (an agent), 'python' (functions) or 'container' (an image)"
            )
        return self

    @model_validator(mode="after")
    def _has_fields_of_its_kind(self) -> Self:
        if self.is_process and self.headers:
            raise ValueError(
                "'headers' applies only to servers with a URL; use 'env' for a process or container"
            )
        if not self.openapi:
            self._refuse_alien(_OF_OPENAPI, "servers with 'openapi'")
        if not (self.openapi or self.a2a):
            self._refuse_alien(("base_url",), "servers with 'openapi' or 'a2a'")
        if not self.is_described:
            self._refuse_alien(_OF_DESCRIBED, "servers with 'openapi', 'graphql', 'grpc' or 'a2a'")
        if not self.is_process:
            self._refuse_alien(BOUNDS, "servers with 'command', 'python' or 'container'")
        if not self.has_sessions:
            self._refuse_alien(
                _OF_SESSIONS, "servers that may keep state (processes, url, replicas, sse)"
            )
            self._refuse_alien(("protocol",), "MCP servers (processes, url, replicas, sse)")
        if self.is_process or self.grpc:
            self._refuse_alien(("proxy",), "servers with an HTTP URL")
        if self.is_process or self.grpc.startswith("grpc://"):
            self._refuse_alien(FILES, "servers that are called over TLS")
        return self

    @model_validator(mode="after")
    def _supports_family(self) -> Self:
        if self.sse and self.protocol == "modern":
            raise ValueError(
                "'sse' is always 'legacy'; remove 'protocol', or configure 'url' instead of 'sse'"
            )
        return self

    @model_validator(mode="after")
    def _is_authorized_once(self) -> Self:
        if self.oauth is None:
            return self
        if any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("has 'oauth' and a header 'Authorization'; remove one of them")
        if self.oauth.tokens == "user" and self._has_public_cache:
            raise ValueError(
                "uses a token per user, so its caches cannot be public; make them private"
            )
        problem = misfit(self.oauth, self.kind, own_env=tuple(self.env))
        if not problem and not self.oauth_url:
            problem = "the audience of its tokens is unknown; set 'resource' or 'base_url'"
        if problem:
            raise ValueError(f"oauth: {problem}")
        return self

    @model_validator(mode="after")
    def _can_send_identity(self) -> Self:
        if self.identity is None:
            return self
        if self.is_process:
            raise ValueError("'identity' applies only to servers with a URL; remove it")
        if any(name.lower() == self.identity.header.lower() for name in self.headers):
            raise ValueError(
                f"has 'identity' and a header '{self.identity.header}'; remove one of them"
            )
        if self._has_public_cache:
            raise ValueError(
                "receives the caller's identity, so its caches cannot be public; make them private"
            )
        if self.grpc and not self.identity.fits_grpc:
            raise ValueError(f"'{self.identity.header}' is not a valid header in gRPC; set another")
        return self

    @property
    def _has_public_cache(self) -> bool:
        caches = (view.cache for view in self.tools.values())
        return any(each is not None and each.scope == "public" for each in caches)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.network != "any" and not self.namespaces:
            raise ValueError("'network' needs 'namespaces', which is disabled; remove one of them")
        if self.container and isinstance(self.network, Hosts):
            raise ValueError(
                "'network' of a container must be any, loopback or none; a list of "
                "hosts is not supported"
            )
        if self.key and not self.certificate:
            raise ValueError("has 'key' without 'certificate'; set both")
        return self

    def _refuse_alien(self, names: tuple[str, ...], owner: str) -> None:
        """Raise `ValueError` if a field is set that applies only to servers of another kind."""
        for name in names:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default:
                raise ValueError(f"'{name}' applies only to {owner}; remove it")
