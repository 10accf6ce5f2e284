"""Three NATS servers as one cluster, as `toolbus nats-config` configures them."""

import json
from collections.abc import Iterator, Sequence
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
    """One server of the cluster."""

    def __init__(self, directory: Path, configuration: dict[str, Any]) -> None:
        super().__init__(directory)
        self._file = directory / "nats.conf"
        store = str(directory / "store")
        jetstream = configuration["jetstream"] | {"store_dir": store}
        own = {"port": self.port, "jetstream": jetstream}
        self._file.write_text(json.dumps(configuration | own))

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://localhost:{self.port}"

    def command(self) -> Sequence[str]:
        return [installed("nats-server"), "--config", str(self._file)]


@contextmanager
def clustered(
    directory: Path, seeds: Path, tls: ServerTls | None, *, strict: bool = False
) -> Iterator[list[ClusterNode]]:
    """Run the three servers until the context ends."""
    declared = parsed_nodes([f"{name}=localhost:{own_port()}" for name in NAMES])
    base = server_configuration(
        create_seeds(seeds), host="127.0.0.1", port=0, store_dir="", strict=strict
    )
    started = [
        ClusterNode(
            directory / each.name,
            base
            | optional_settings(tls, each.name, "", "")
            | cluster_settings(each, declared, "secret", tls),
        )
        for each in declared
    ]
    try:
        for each in started:
            each.start()
        yield started
    finally:
        for each in started:
            each.stop()
