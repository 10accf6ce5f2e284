"""Engines in containers, with testcontainers.

Tests with the mark `containers("nats")` run if a container engine has the image. With
`TOOLBUS_TEST_CONTAINERS=1` the container engine and the images are required: no test is skipped,
images are pulled, and the whole run uses the containers of NATS and Valkey.
`TOOLBUS_TEST_IMAGE_NATS` selects another image; each engine has such a variable.
`harness.engines.local_images` creates two images without a registry.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.engines.nats_server import seeded_configuration

IMAGES = {
    "nats": "nats:2.12-alpine",
    "valkey": "valkey/valkey:9-alpine",
    "clickhouse": "clickhouse/clickhouse-server:25.8-alpine",
    "minio": "quay.io/minio/minio:latest",
    "keycloak": "quay.io/keycloak/keycloak:26.4",
    "vault": "hashicorp/vault:1.20",
}
LEFT_OUT = "container left out: "
REQUIRED = "TOOLBUS_TEST_CONTAINERS"
PASSWORD = "container-test"
NONE: Mapping[Any, str] = MappingProxyType({})


def requested() -> bool:
    """Return whether this run requires containers.

    Without a container engine, the run fails later.
    """
    return os.environ.get(REQUIRED) == "1"


def image_of(engine: str) -> str:
    """Return the name of an engine's image."""
    return os.environ.get(f"TOOLBUS_TEST_IMAGE_{engine.upper()}") or IMAGES[engine]


@cache
def missing(engine: str) -> str:
    """Return the reason why the tests of an engine are skipped; empty if they run."""
    if requested():
        return ""
    if not _listens(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        return "no container engine"
    import docker  # noqa: PLC0415 - few runs need it
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415 - what docker's client does not convert

    try:
        with closing(docker.from_env(timeout=5)) as client:
            client.images.get(image_of(engine))
    except ImageNotFound:
        return f"no image {image_of(engine)}"
    except (DockerException, RequestException):
        return "no container engine"
    return ""


def _listens(host: str) -> bool:
    """Return whether a local container engine accepts connections.

    If it does not, docker's client would leak its socket. An engine at a TCP address is assumed to
    accept connections.
    """
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as attempt:
        try:
            attempt.connect(host.removeprefix("unix://"))
        except OSError:
            return False
    return True


def summary(reasons: list[str]) -> str:
    """Return a line about the skipped tests; empty if no test is skipped."""
    left = [each.partition(LEFT_OUT)[2] for each in reasons if LEFT_OUT in each]
    if not left:
        return ""
    why = ", ".join(f"{reason} ({left.count(reason)})" for reason in sorted(set(left)))
    return f"{len(left)} tests with containers were left out: {why}; {REQUIRED}=1 requires them"


@contextmanager
def _running(
    engine: str,
    port: int,
    command: str = "",
    *,
    files: Mapping[Path, str] = NONE,
    environ: Mapping[str, str] = NONE,
) -> Iterator[str]:
    """Run the container of an engine, and return host:port when the port accepts connections."""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    # Ryuk would remove the containers of a killed run, but this machine may not have its image.
    testcontainers_config.ryuk_disabled = True
    container: Any = DockerContainer(image_of(engine)).with_exposed_ports(port)
    for name, value in environ.items():
        container.with_env(name, value)
    for source, path in files.items():
        container.with_volume_mapping(str(source), path, "ro")
    if command:
        container.with_command(command)
    with container as running:
        yield f"{running.get_container_host_ip()}:{running.get_exposed_port(port)}"


@contextmanager
def nats_container(directory: Path) -> Iterator[str]:
    """Run a NATS server and return its URL; the seeds are written to `directory/nkeys`."""
    configuration = directory / "nats.conf"
    configuration.write_text(
        json.dumps(seeded_configuration(directory, host="0.0.0.0", port=4222, store_dir="/data"))
    )
    files = {configuration: "/etc/nats/toolbus.conf"}
    with _running("nats", 4222, "--config /etc/nats/toolbus.conf", files=files) as address:
        yield f"nats://{address}"


@contextmanager
def valkey_container() -> Iterator[str]:
    """Run a Valkey server and return its URL."""
    with _running("valkey", 6379) as address:
        yield f"redis://{address}"


@contextmanager
def clickhouse_container() -> Iterator[str]:
    """Run a ClickHouse server and return the URL of its HTTP interface, with credentials."""
    environ = {"CLICKHOUSE_USER": "toolbus", "CLICKHOUSE_PASSWORD": PASSWORD}
    with _running("clickhouse", 8123, environ=environ) as address:
        yield f"http://toolbus:{PASSWORD}@{address}"


@contextmanager
def minio_container() -> Iterator[str]:
    """Run a MinIO server, and return its URL. The password of its user `toolbus` is `PASSWORD`."""
    environ = {"MINIO_ROOT_USER": "toolbus", "MINIO_ROOT_PASSWORD": PASSWORD}
    with _running("minio", 9000, "server /data", environ=environ) as address:
        yield f"http://{address}"


@contextmanager
def keycloak_container() -> Iterator[str]:
    """Run a Keycloak server in development mode and return its URL."""
    environ = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD}
    with _running("keycloak", 8080, "start-dev", environ=environ) as address:
        yield f"http://{address}"


@contextmanager
def vault_container() -> Iterator[str]:
    """Run a Vault server in development mode, and return its URL.

    Its root token is `PASSWORD`.
    """
    environ = {"VAULT_DEV_ROOT_TOKEN_ID": PASSWORD, "VAULT_DEV_LISTEN_ADDRESS": "0.0.0.0:8200"}
    with _running("vault", 8200, environ=environ) as address:
        yield f"http://{address}"
