"""Two Valkey servers, primary and replica, and a sentinel that exchanges them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from harness.engines.valkey_sentinel import ValkeyPrimary, ValkeySentinel
from harness.waits import until_blocking


class LedgerServers:
    """The servers of the ledger. Either can be the primary."""

    def __init__(self, directory: Path) -> None:
        self._servers = [ValkeyPrimary(directory / name) for name in ("one", "two")]
        self._sentinel = ValkeySentinel(directory / "sentinel", self._servers[0])

    @property
    def url(self) -> str:
        """The URL for the services, which names the sentinel."""
        return self._sentinel.url

    @property
    def primary_url(self) -> str:
        """The URL of the current primary."""
        return self.primary.url

    @property
    def primary(self) -> ValkeyPrimary:
        """The server that the sentinel names."""
        port = self._sentinel.primary()
        return next(each for each in self._servers if each.port == port)

    @property
    def replica(self) -> ValkeyPrimary:
        """The other server."""
        primary = self.primary
        return next(each for each in self._servers if each is not primary)

    @contextmanager
    def running(self) -> Iterator["LedgerServers"]:
        """Run the three processes until the context ends."""
        one, two = self._servers
        with one.running(), two.running():
            _follow(two, one)
            with self._sentinel.running():
                self.until_in_step()
                yield self

    def until_in_step(self) -> None:
        """Wait until the replica follows the primary, and the sentinel knows it."""
        until_blocking(self._is_in_step, "the replica of the ledger is in step")
        until_blocking(lambda: self._sentinel.replicas() == 1, "the sentinel's replica")

    def empty(self) -> None:
        """Kill the primary, and start it without its data."""
        server = self.primary
        server.kill()
        for path in server.directory.glob("appendonly*"):
            shutil.rmtree(path)
        server.start()

    def detach(self, *, flush: bool = False) -> None:
        """Let the replica keep what it has from now on, or nothing."""
        with _client(self.replica) as client:
            client.replicaof("NO", "ONE")
            if flush:
                client.flushall()

    def fail_over(self) -> ValkeyPrimary:
        """Kill the primary, and return it when the sentinel names the other one."""
        server = self.primary
        server.kill()
        until_blocking(lambda: self.primary is not server, "the failover")
        return server

    def join(self, server: ValkeyPrimary) -> None:
        """Start a killed server as the replica."""
        server.start()
        _follow(server, self.primary)

    def _is_in_step(self) -> bool:
        with _client(self.replica) as client:
            found: dict[str, Any] = client.info("replication")
        return (found["role"], found.get("master_link_status")) == ("slave", "up")


def _client(server: ValkeyPrimary) -> redis.Redis:
    return redis.Redis(port=server.port)


def _follow(server: ValkeyPrimary, primary: ValkeyPrimary) -> None:
    with _client(server) as client:
        client.replicaof("127.0.0.1", str(primary.port))
