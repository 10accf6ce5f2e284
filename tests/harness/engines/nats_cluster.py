"""Three NATS servers as one cluster, as `toolbus nats-config` configures them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine, installed, own_port
from toolbus_cli.commands.operate.nats_cluster import (
    ServerTls,
    cluster_settings,
    optional_settings,
    parsed_nodes,
)
from toolbus_common.nats.permissions import create_seeds, server_configuration

NAMES = ("n1", "n2", "n3")


class ClusterNode(Engine):
    """One server of the cluster, on this machine or on `host`, which `entry` enters."""

    def __init__(
        self,
        directory: Path,
        configuration: dict[str, Any],
        host: str = "localhost",
        entry: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        self.host, self._entry = host, entry
        self._file = directory / "nats.conf"
        store = str(self.store)
        jetstream = configuration["jetstream"] | {"store_dir": store}
        own = {"port": self.port, "jetstream": jetstream}
        self._file.write_text(json.dumps(configuration | own))

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://{self.host}:{self.port}"

    @property
    def store(self) -> Path:
        """The directory of the streams."""
        return self.directory / "store"

    def permit_everything(self) -> None:
        """Give each user all rights."""
        settings = json.loads(self._file.read_text())
        for account in settings["accounts"].values():
            for user in account["users"]:
                user.pop("permissions", None)
        self._file.write_text(json.dumps(settings))

    def command(self) -> Sequence[str]:
        return [*self._entry, installed("nats-server"), "--config", str(self._file)]


def declared_nodes(
    directory: Path,
    seeds: Path,
    tls: ServerTls | None,
    hosts: Mapping[str, Sequence[str]] = {},
    *,
    strict: bool = False,
) -> list[ClusterNode]:
    """Return the three servers, which do not run yet; `hosts` has the command that enters each."""
    names = dict(zip(NAMES, hosts or ["localhost"] * len(NAMES), strict=True))
    declared = parsed_nodes([f"{name}={host}:{own_port()}" for name, host in names.items()])
    listen = "0.0.0.0" if hosts else "127.0.0.1"
    base = server_configuration(
        create_seeds(seeds), host=listen, port=0, store_dir="", strict=strict
    )
    return [
        ClusterNode(
            directory / each.name,
            base
            | optional_settings(tls, each.name, "", "")
            | cluster_settings(each, declared, "secret", tls),
            each.host,
            hosts.get(each.host, ()),
        )
        for each in declared
    ]


@contextmanager
def clustered(
    directory: Path, seeds: Path, tls: ServerTls | None, *, strict: bool = False
) -> Iterator[list[ClusterNode]]:
    """Run the three servers until the context ends."""
    with running(declared_nodes(directory, seeds, tls, strict=strict)) as started:
        yield started


@contextmanager
def running(started: list[ClusterNode]) -> Iterator[list[ClusterNode]]:
    """Run these servers until the context ends."""
    try:
        for each in started:
            each.start()
        yield started
    finally:
        for each in started:
            each.stop()
