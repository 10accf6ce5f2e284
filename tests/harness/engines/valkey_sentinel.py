"""A Valkey primary with a replica, and a sentinel that replaces the primary."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from harness.engines.engine import Engine
from harness.engines.valkey_server import ValkeyServer
from harness.waits import until_blocking

PRIMARY = "ledger"
DOWN_MILLISECONDS = 1000


class ValkeyPrimary(ValkeyServer):
    """A server whose replicas need not wait for others to be copied with them."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--repl-diskless-sync-delay", "0"]


class ValkeyReplica(ValkeyServer):
    """A replica of another server."""

    def __init__(self, directory: Path, primary: ValkeyServer) -> None:
        super().__init__(directory)
        self._primary = primary

    def command(self) -> Sequence[str]:
        return [*super().command(), "--replicaof", "127.0.0.1", str(self._primary.port)]


class ValkeySentinel(Engine):
    """A sentinel that decides alone."""

    def __init__(self, directory: Path, primary: ValkeyServer) -> None:
        super().__init__(directory)
        self._binary = primary.command()[0]
        self._file = directory / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {PRIMARY} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {PRIMARY} {DOWN_MILLISECONDS}\n"
            f"sentinel failover-timeout {PRIMARY} 5000\n"
        )

    @property
    def url(self) -> str:
        """The URL of the ledger."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{PRIMARY}"

    def command(self) -> Sequence[str]:
        return [self._binary, str(self._file), "--sentinel"]

    def replicas(self) -> int:
        """Return the number of replicas that the sentinel can promote."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            found = client.sentinel_slaves(PRIMARY)
        return sum(each["flags"] == "slave" for each in found)

    def primary(self) -> int:
        """Return the port of the current primary."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            _, port = client.sentinel_get_master_addr_by_name(PRIMARY)
        return int(port)


class SentinelGroup:
    """The three processes."""

    def __init__(self, directory: Path) -> None:
        self.primary = ValkeyPrimary(directory / "primary")
        self.replica = ValkeyReplica(directory / "replica", self.primary)
        self.sentinel = ValkeySentinel(directory / "sentinel", self.primary)

    @contextmanager
    def running(self) -> Iterator["SentinelGroup"]:
        """Run until the context ends; the replica is in step at the start."""
        with self.primary.running(), self.replica.running():
            until_blocking(self._is_in_step, "the replica is in step")
            with self.sentinel.running():
                until_blocking(lambda: self.sentinel.replicas() == 1, "the sentinel's replica")
                yield self

    def fail_over(self) -> None:
        """Kill the primary, and wait until the sentinel names the replica."""
        self.primary.kill()
        until_blocking(lambda: self.sentinel.primary() == self.replica.port, "the failover")

    def detach(self) -> None:
        """Let the replica lag from now on."""
        with redis.Redis(port=self.replica.port) as client:
            client.replicaof("NO", "ONE")

    def _is_in_step(self) -> bool:
        with redis.Redis(port=self.replica.port) as client:
            return bool(client.info("replication")["master_link_status"] == "up")
