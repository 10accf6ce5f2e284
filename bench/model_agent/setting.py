"""Toolbus with real MCP servers, the company's servers, and the model as a provider."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.agent_model.model import MODEL, ModelServer, model_file
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.engines.engine import installed
from harness.gateway.cluster import Cluster
from harness.packages import everything_server, npm
from harness.waits import until_blocking
from model_agent.workspace import Workspace
from scripted import catalogue
from scripted.gateway import Servers
from toolbus_common.config import Configuration

FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"
PROVIDER = "local"
CLASSIC, CODE = "classic", "code"
REAL = 0  # a number of tools: those of the real servers alone
ALL = "sees_all"
SERVER_SECONDS = 120.0
MODEL_SECONDS = 3600.0
READY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Setting:
    """The running gateway, its model, and the workspace of the real servers."""

    cluster: Cluster
    model: ModelServer
    workspace: Workspace
    sizes: tuple[int, ...]

    @property
    def url(self) -> str:
        """The base URL of the models API."""
        return self.cluster.client("").endpoint.removesuffix("/mcp") + "/v1"

    def client(self, size: int, mode: str) -> Client:
        """Return an MCP client that sees `size` tools in a mode."""
        return client(self.cluster, f"sees_{size}", "?mode=code" if mode == CODE else "")

    def tools(self, size: int, mode: str) -> list[dict[str, Any]]:
        """Return the tools as the agent lists them."""
        return listed(self.client(size, mode))


def secret(name: str) -> str:
    """Return the secret of a key."""
    return f"tbk_{name.replace('_', '-')}_a-secret-of-the-bench"


def client(cluster: Cluster, name: str, query: str = "") -> Client:
    """Return an MCP client with a key."""
    return Client(cluster.client("").endpoint + query, secret(name), patience=SERVER_SECONDS)


def listed(client: Client) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a client sees."""
    reply = client.request("tools/list").json  # an error until the gateway knows the key
    tools: list[dict[str, Any]] = reply.get("result", {}).get("tools", [])
    return tools


@contextmanager
def running(
    directory: Path, workspace: Workspace, sizes: Sequence[int], threads: int
) -> Iterator[Setting]:
    """Run everything until each key sees its tools.

    `directory` holds the model's file and the npm packages, which are used again.
    """
    workspace.create()
    node = directory / "node"
    node.mkdir(exist_ok=True)
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toolbus-agent-")))
        server = ModelServer(state / "model", model_file(directory), threads)
        model = stack.enter_context(server.running())
        company = stack.enter_context(Servers(state / "company").running())
        cluster = Cluster(state / "cluster", TOOLBUS_CALL_TIMEOUT=str(SERVER_SECONDS))
        real = real_servers(workspace, node)
        declared = configuration(real, company.url, model.url, {})
        options: dict[str, Any] = {"fused": True, "additional": ("codemode",)}
        stack.enter_context(cluster.running(declared, **options))
        own = until_blocking(lambda: _names(cluster, real), "the servers", READY_SECONDS)
        known = {size or len(own): seen(own, size) for size in sizes}
        cluster.declare(configuration(real, company.url, model.url, known))
        setting = Setting(cluster, model, workspace, tuple(known))
        for size in setting.sizes:
            until_blocking(lambda n=size: _sees(setting, n), f"{size} tools", READY_SECONDS)  # type: ignore[misc]
        yield setting


def real_servers(workspace: Workspace, node: Path) -> dict[str, dict[str, Any]]:
    """Return the declarations of the real MCP servers."""
    files = npm.installed(FILESYSTEM, "dist/index.js", node)
    directory, repository = str(workspace.directory), str(workspace.repository)
    common = {"idle": 0, "sessions": "shared", "timeout": SERVER_SECONDS}
    return {
        "disk": {
            "command": [str(npm.NODE), str(files), directory],
            "files": {"write": [directory]},
            **common,
        },
        "git": {
            "command": [installed("mcp-server-git"), "--repository", repository],
            "files": {"write": [directory]},
            **common,
        },
        "time": {
            "command": [installed("mcp-server-time"), "--local-timezone", "UTC"],
            **common,
        },
        "everything": {"command": [*everything_server.install(node), "stdio"], **common},
    }


def configuration(
    real: dict[str, dict[str, Any]], company: str, model: str, seen: dict[int, list[str]]
) -> Configuration:
    """Return the servers, the provider, and a key for each number of tools."""
    keys = {ALL: key(secret(ALL), "*")}
    for size, tools in seen.items():
        keys[f"sees_{size}"] = key(secret(f"sees_{size}"), *tools, models=["*"])
    others = {name: {"url": f"{company}/{name}/mcp"} for name in catalogue.tools()}
    provider = {
        "kind": "openai",
        "url": model,
        "models": [MODEL],
        "timeout": MODEL_SECONDS,
        "max_total_timeout": MODEL_SECONDS,
    }
    return Configuration.model_validate(
        {
            "servers": {**real, **others},
            "providers": {PROVIDER: provider},
            "model_prices": {f"{PROVIDER}/*": {"input": 1.0, "output": 2.0}},
            "keys": keys,
        }
    )


def seen(real: list[str], size: int) -> list[str]:
    """Return `size` tool names: the real servers' tools, then those of each company server."""
    others = [
        [f"{server}__{tool['name']}" for tool in own] for server, own in catalogue.tools().items()
    ]
    mixed = [name for row in zip_longest(*others) for name in row if name]
    return [*real, *mixed][: size or len(real)]


def _names(cluster: Cluster, real: dict[str, Any]) -> list[str]:
    """Return the tools of the real servers, or an empty list until all servers are listed."""
    names = [tool["name"] for tool in listed(client(cluster, ALL))]
    servers = {name.partition("__")[0] for name in names}
    if not servers >= {*real, *catalogue.tools()}:
        return []
    return sorted(name for name in names if name.partition("__")[0] in real)


def _sees(setting: Setting, size: int) -> bool:
    return len(setting.tools(size, CLASSIC)) == size and len(setting.tools(size, CODE)) == 5
