"""A Valkey Cluster: three primaries with a replica each."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from harness.engines.engine import own_port
from harness.engines.valkey_server import ValkeyServer
from harness.waits import until_blocking

# After them, a primary that does not answer is replaced. A busy machine is no failure, so the time
# is short only while a failover is awaited.
PATIENT, IMPATIENT = 30_000, 1000
PRIMARIES = 3


class ClusterServer(ValkeyServer):
    """One server of the cluster."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.bus_port = own_port()

    def command(self) -> Sequence[str]:
        return [
            *super().command(),
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(PATIENT)),
            *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
        ]

    def client(self) -> redis.Redis:
        """Return a client of this server alone."""
        return redis.Redis(port=self.port, decode_responses=True)

    def run(self, *words: object) -> Any:
        """Run one command at this server."""
        with self.client() as client:
            return client.execute_command(*words)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def has(self, slot: int) -> bool:
        """Return whether it is the primary of a slot that has keys."""
        return bool(
            self.run("ROLE")[0] == "master" and self.run("CLUSTER", "COUNTKEYSINSLOT", slot)
        )

    @property
    def id(self) -> str:
        """The server's name in the cluster."""
        return str(self.run("CLUSTER", "MYID"))


class ValkeyCluster:
    """The six servers."""

    def __init__(self, directory: Path) -> None:
        self.servers = [ClusterServer(directory / f"v{n}") for n in range(2 * PRIMARIES)]

    @property
    def url(self) -> str:
        """The URL of the ledger; it names two of the servers."""
        return f"redis+cluster://127.0.0.1:{self.servers[0].port},127.0.0.1:{self.servers[1].port}"

    @contextmanager
    def running(self) -> Iterator["ValkeyCluster"]:
        """Run until the context ends; every slot has a primary and a replica in step."""
        with ExitStack() as stack:
            for each in self.servers:
                stack.enter_context(each.running())
            self._form()
            yield self

    def primary_of(self, key: str) -> ClusterServer:
        """Return the primary that has this key."""
        slot = self.slot_of(key)
        return next(each for each in self._alive() if each.has(slot))

    def slot_of(self, key: str) -> int:
        """Return the hash slot of a key."""
        return int(self._alive()[0].run("CLUSTER", "KEYSLOT", key))

    def replica_of(self, primary: ClusterServer) -> ClusterServer:
        """Return the replica of a primary."""
        return next(
            each
            for each in self._alive()
            if each.run("ROLE")[:3] == ["slave", "127.0.0.1", primary.port]
        )

    def fail_over(self, primary: ClusterServer) -> ClusterServer:
        """Kill a primary, and wait until its replica has its slots."""
        replica = self.replica_of(primary)
        self._give_up_after(IMPATIENT)
        primary.kill()
        until_blocking(lambda: replica.run("ROLE")[0] == "master", "the failover")
        until_blocking(self._is_whole, "every slot has a primary")
        self._give_up_after(PATIENT)
        return replica

    def detach(self, primary: ClusterServer) -> None:
        """Let the replica of a primary lag from now on."""
        primary.run("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
        primary.run("CLIENT", "KILL", "TYPE", "replica")

    def begin_move(self, slot: int, source: ClusterServer, target: ClusterServer) -> None:
        """Let a slot be between two servers: the source still has it, and asks for the target."""
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: ClusterServer, target: ClusterServer, most: int) -> None:
        """Move at most this many keys of a slot."""
        if keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, most):
            source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, source: ClusterServer, target: ClusterServer) -> None:
        """Give the slot to the target."""
        for each in (target, source):
            each.run("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def _form(self) -> None:
        program = Path(self.servers[0].command()[0]).with_name("valkey-cli")
        addresses = [f"127.0.0.1:{each.port}" for each in self.servers]
        create = [str(program), "--cluster", "create", *addresses]
        subprocess.run(
            [*create, "--cluster-replicas", "1", "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        until_blocking(self._is_whole, "every slot has a primary")
        until_blocking(self._is_in_step, "the replicas are in step")

    def _give_up_after(self, milliseconds: int) -> None:
        for each in self._alive():
            each.run("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def _alive(self) -> list[ClusterServer]:
        return [each for each in self.servers if each.is_running]

    def _is_whole(self) -> bool:
        return all("cluster_state:ok" in str(each.run("CLUSTER", "INFO")) for each in self._alive())

    def _is_in_step(self) -> bool:
        roles = [each.run("ROLE") for each in self.servers]
        in_step = [role for role in roles if role[0] == "slave" and role[3] == "connected"]
        return len(in_step) == PRIMARIES
