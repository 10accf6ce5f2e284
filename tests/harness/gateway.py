"""The gateway of the e2e tests: its keys, its upstreams, and how a test reaches it."""

from dataclasses import dataclass
from pathlib import Path

from harness.client import Client
from harness.cluster import Cluster, Upstream
from harness.engines import Engine, installed
from harness.operating import key
from toolbus_common.declared import Budget, Customer, Declaration, Period, Rate, Server, Team

ROOT_KEY = "tbk_root_e2e-secret-for-everything"
READER_KEY = "tbk_reader_e2e-secret-for-some"
POOR_KEY = "tbk_poor_e2e-secret-with-no-money"
HASTY_KEY = "tbk_hasty_e2e-secret-with-a-rate"
TEAM_KEY = "tbk_member_e2e-secret-of-a-team"
OLD_KEY = "tbk_old_e2e-secret-that-expired"
CALL_SECONDS = 5.0


class EverythingOverHttp(Engine):
    """server-everything on a port."""

    def __init__(self, directory: Path, program: list[str]) -> None:
        super().__init__(directory)
        self._program = program

    def command(self) -> list[str]:
        """The port comes from the environment."""
        return ["/usr/bin/env", f"PORT={self.port}", *self._program, "streamableHttp"]


@dataclass
class Gateway:
    """A running Toolbus and what stands behind it."""

    cluster: Cluster
    echo: Upstream

    def client(self, secret: str = ROOT_KEY, server: str = "") -> Client:
        """A client with a key, at the shared endpoint or at one server's."""
        client = self.cluster.client(secret)
        return Client(f"{client.endpoint}/{server}", secret) if server else client


def declaration(
    echo: Upstream, over_http: EverythingOverHttp, program: list[str], repository: Path
) -> Declaration:
    """Five upstreams, and a key for every refusal."""
    dollar = Budget(usd=1, per=Period.DAY)
    return Declaration(
        servers={
            "echo": Server(url=echo.url),
            "short": Server(url=echo.url, timeout=0.3),
            "dead": Server(url="http://127.0.0.1:9/mcp"),
            "time": Server(command=(installed("mcp-server-time"), "--local-timezone", "UTC")),
            "git": Server(command=(installed("mcp-server-git"), "--repository", str(repository))),
            "every": Server(command=(*program, "stdio")),
            "web": Server(url=f"http://127.0.0.1:{over_http.port}/mcp"),
        },
        customers={"acme": Customer(budget=Budget(usd=0.05, per=Period.MONTH))},
        teams={"support": Team(customer="acme", tools=("echo__*",))},
        keys={
            "root": key(ROOT_KEY),
            "reader": key(READER_KEY, "git__git_log", "echo__say"),
            "poor": key(POOR_KEY, budget=dollar),
            "hasty": key(HASTY_KEY, rate=Rate(calls=2, per=Period.DAY)),
            "member": key(TEAM_KEY, team="support", budget=dollar),
            "old": key(OLD_KEY, expires="2020-01-01"),
        },
        prices={"echo__say": 0.3, "echo__count": 0.03},
    )
