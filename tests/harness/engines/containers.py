"""The same engines in containers, for `TOOLBUS_TEST_CONTAINERS=1` on a machine with Docker."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.engines.nats_server import seeded_configuration

NATS_IMAGE = "nats:2.12-alpine"
VALKEY_IMAGE = "valkey/valkey:9-alpine"


def requested() -> bool:
    """Return whether this run uses containers. Without a Docker engine the run fails later."""
    return os.environ.get("TOOLBUS_TEST_CONTAINERS") == "1"


@contextmanager
def nats_container(directory: Path) -> Iterator[str]:
    """Run a NATS server and return its URL; the seeds are written to `directory/nkeys`."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    configuration = directory / "nats.conf"
    configuration.write_text(
        json.dumps(seeded_configuration(directory, host="0.0.0.0", port=4222, store_dir="/data"))
    )
    container = DockerContainer(NATS_IMAGE).with_exposed_ports(4222)
    container.with_volume_mapping(str(configuration), "/etc/nats/toolbus.conf", "ro")
    container.with_command("--config /etc/nats/toolbus.conf")
    with container as running:
        yield f"nats://{running.get_container_host_ip()}:{running.get_exposed_port(4222)}"


@contextmanager
def valkey_container() -> Iterator[str]:
    """Run a Valkey server and return its URL."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    with DockerContainer(VALKEY_IMAGE).with_exposed_ports(6379) as running:
        yield f"redis://{running.get_container_host_ip()}:{running.get_exposed_port(6379)}"
