"""Gateway of the e2e tests, with its keys and upstreams."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from harness.clients.mcp_client import Client
from harness.engines.engine import Engine, installed
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched

ROOT_KEY = "tbk_root_e2e-secret-for-everything"
READER_KEY = "tbk_reader_e2e-secret-for-some"
POOR_KEY = "tbk_poor_e2e-secret-with-no-money"
HASTY_KEY = "tbk_hasty_e2e-secret-with-a-rate"
TEAM_KEY = "tbk_member_e2e-secret-of-a-team"
OLD_KEY = "tbk_old_e2e-secret-that-expired"
CALL_SECONDS = 20.0  # timeout that no test waits for
AWAKE = 0  # no server becomes idle during the tests


class EverythingOverHttp(Engine):
    """server-everything over HTTP."""

    def __init__(self, directory: Path, program: list[str]) -> None:
        super().__init__(directory)
        self._program = program

    def command(self) -> list[str]:
        """Return the command line. The port is set in the environment."""
        return ["/usr/bin/env", f"PORT={self.port}", *self._program, "streamableHttp"]


@dataclass
class Gateway:
    """A running Toolbus with its upstreams."""

    cluster: Launched
    echo: Upstream

    def client(self, secret: str = ROOT_KEY, server: str = "") -> Client:
        """Return a client with a key, for the shared endpoint or for the endpoint of one server."""
        client = self.cluster.client(secret)
        return Client(f"{client.endpoint}/{server}", secret) if server else client


def configuration(
    echo: Upstream, over_http: EverythingOverHttp, program: list[str], repository: Path
) -> dict[str, Any]:
    """Return toolbus.yaml with seven servers, and a key for each kind of denial."""
    dollar = {"usd": 1, "per": "day"}
    time = [installed("mcp-server-time"), "--local-timezone", "UTC"]
    git = [installed("mcp-server-git"), "--repository", str(repository)]
    return {
        "servers": {
            "echo": {"url": echo.url},
            "short": {"url": echo.url, "timeout": 2},
            "dead": {"url": "http://127.0.0.1:9/mcp"},
            "time": {"command": time, "idle": AWAKE},
            "git": {"command": git, "cwd": str(repository), "idle": AWAKE},
            "every": {"command": [*program, "stdio"], "idle": AWAKE},
            "web": {"url": f"http://127.0.0.1:{over_http.port}/mcp"},
        },
        "customers": {"acme": {"budget": {"usd": 0.05, "per": "month"}}},
        "teams": {"support": {"customer": "acme", "tools": ["echo__*"]}},
        "keys": {
            "root": {"secret": ROOT_KEY, "tools": ["*"]},
            "reader": {"secret": READER_KEY, "tools": ["git__git_log", "echo__say"]},
            "poor": {"secret": POOR_KEY, "tools": ["*"], "budget": dollar},
            "hasty": {"secret": HASTY_KEY, "tools": ["*"], "rate": {"calls": 2, "per": "day"}},
            "member": {"secret": TEAM_KEY, "tools": ["*"], "team": "support", "budget": dollar},
            "old": {"secret": OLD_KEY, "tools": ["*"], "expires": date(2020, 1, 1)},
        },
        "prices": {"echo__say": 0.3, "echo__count": 0.03},
    }
