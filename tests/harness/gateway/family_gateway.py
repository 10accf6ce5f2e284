"""Gateway with up to two replicas of a service, and the requests of both protocol families."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.upstream import FixtureServer
from harness.clients.bus_operator import key
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration, Server

NOW = "2026-07-28"
META = "io.modelcontextprotocol/"
ROOT, OTHER = "tbk_root_a-secret-of-sessions", "tbk_other_another-secret-of-sessions"
PLAIN = "tbk_plain_a-secret-for-one-server"
TENANTS = [f"tbk_tenant{number}_a-secret-of-this-tenant" for number in range(50)]
ASK = "fix__test_input_required_result_request_state"


class FamilyGateway:
    """A gateway with its upstreams and its configuration."""

    def __init__(self, cluster: Cluster, echo: Upstream, fixture: FixtureServer) -> None:
        self.cluster = cluster
        self.echo = echo
        self.fixture = fixture
        self.servers = {"echo": Server(url=echo.url), "fix": Server(url=fixture.url)}
        self.keys = {
            "root": key(ROOT),
            "other": key(OTHER),
            "plain": key(PLAIN, "echo__*"),
            **{f"tenant{number}": key(secret) for number, secret in enumerate(TENANTS)},
        }

    def configuration(self, **more: Server) -> Configuration:
        return Configuration(servers={**self.servers, **more}, keys=self.keys)

    def client(self, secret: str = ROOT, replica: int = 0) -> Client:
        """Return a client of one ingress replica."""
        return self.cluster.client(secret, 0 if self.cluster.fused else replica)

    def until_listed(self, *tools: str) -> None:
        """Wait until these tools are listed and all replicas of all services have them."""
        self.cluster.until_listed(self.client(), *tools)


@contextmanager
def replicated(directory: Path, *, fused: bool, **environment: str) -> Iterator[FamilyGateway]:
    """Return a cluster: two replicas of each service if separate, one replica if fused."""
    echo, fixture = Upstream(directory / "echo"), FixtureServer(directory / "fixture")
    made = FamilyGateway(Cluster(directory / "cluster", **environment), echo, fixture)
    try:
        echo.start()
        fixture.start()
        made.cluster.start(made.configuration(), fused=fused, replicas=1 if fused else 2)
        made.until_listed(ASK, "echo__say")
        yield made
    finally:
        made.cluster.stop()
        fixture.kill()
        echo.kill()


def start_session(client: Client, capabilities: Any = None, version: str = "2025-11-25") -> str:
    """Start a session and return its id."""
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info}
    answer = client.request("initialize", params)
    assert answer.json["result"]["protocolVersion"] == version
    return answer.headers["mcp-session-id"]


def calling(tool: str, request_id: Any, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def stateless(
    method: str, params: dict[str, Any], request_id: Any = 1, **capabilities: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a stateless request of 2026-07-28 and its headers."""
    meta = {META + "protocolVersion": NOW, META + "clientCapabilities": capabilities}
    headers = {"MCP_Protocol_Version": NOW, "Mcp_Method": method}
    name = params.get("name") or params.get("uri")
    headers |= {"Mcp_Name": name} if name else {}
    fields = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return {**fields, "params": {**params, "_meta": meta}}, headers


def request(client: Client, method: str, params: Any = None, **capabilities: Any) -> Answer:
    body, headers = stateless(method, params or {}, **capabilities)
    return client.post(body, **headers)


def listening(client: Client, request_id: Any = 7, **wanted: Any) -> Events:
    """Return a subscription of 2026-07-28 and its headers."""
    body, headers = stateless("subscriptions/listen", {"notifications": wanted}, request_id)
    return Events(client, body, **headers)
