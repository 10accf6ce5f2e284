"""Configuration of the servers of one NATS cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_common.nats.connection import PING_SECONDS, PINGS

CLUSTER = "toolbus"
SINGLE = "nats"  # the name of the only server's certificate
SYSTEM, SYSTEM_USER = "SYS", "system"
PORT = 6222
_NODE = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_-]{0,31})=([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?"
)


class Durability(StrEnum):
    """When the servers sync a message to disk: within a second, or before they acknowledge it."""

    DEFAULT = "default"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Node:
    """A server of a cluster. The other servers connect to `port` on `host`."""

    name: str
    host: str
    port: int


def parsed_nodes(texts: Sequence[str]) -> list[Node]:
    """Return the servers of a cluster; none for a single server. Raises `CommandError`."""
    nodes = []
    for text in texts:
        found = _NODE.fullmatch(text)
        if found is None:
            raise CommandError(
                f"--node {text!r} is not NAME=HOST or NAME=HOST:PORT, such as n1=10.0.0.1."
            )
        nodes.append(Node(found[1], found[2], int(found[3] or PORT)))
    if len({each.name for each in nodes}) < len(nodes):
        raise CommandError(
            "Two --node options have the same name; give each server a name of its own."
        )
    if len(nodes) in (1, 2):
        raise CommandError(
            "A cluster needs at least three servers: with two, the loss of one stops both. Repeat "
            "--node for each server."
        )
    return nodes


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS of the servers, from PEM files in one directory of each server's machine.

    With `verify`, clients need a certificate of the same authority.
    """

    directory: str
    verify: bool

    def settings(self, name: str, *, verify: bool = False) -> dict[str, Any]:
        """Return the `tls` section of the server `name`. The server reads the files again on HUP.

        With `verify`, the other side needs a certificate even if `self.verify` is false.
        """
        folder = PurePosixPath(self.directory)
        return {
            "cert_file": str(folder / f"{name}.pem"),
            "key_file": str(folder / f"{name}.key"),
            "ca_file": str(folder / "ca.pem"),
            "verify": verify or self.verify,
            "timeout": 5,
        }


def optional_settings(
    tls: ServerTls | None, name: str, monitor: str, system_key: str
) -> dict[str, Any]:
    """Return the settings for TLS, monitoring and the system account, as far as they are wanted."""
    found: dict[str, Any] = {}
    if tls is not None:
        found["tls"] = tls.settings(name)
    if monitor:
        found["http"] = monitor
    if system_key:
        found["system_account"] = SYSTEM
        found["accounts"] = {SYSTEM: {"users": [{"nkey": system_key}]}}
    return found


def cluster_settings(
    node: Node, nodes: Sequence[Node], password: str, tls: ServerTls | None = None
) -> dict[str, Any]:
    """Return the additional settings of a server that belongs to a cluster."""
    secured = {"tls": tls.settings(node.name, verify=True)} if tls is not None else {}
    pings = {"ping_interval": f"{PING_SECONDS}s", "ping_max": PINGS}
    return {
        "server_name": node.name,
        # The server sends calls to an unreachable client until it closes the client's connection.
        **pings,
        "cluster": {
            **secured,
            "name": CLUSTER,
            "host": "0.0.0.0",  # noqa: S104 - other machines connect; the password is required
            "port": node.port,
            # Other servers send calls to a hung server until they close their routes to it.
            **pings,
            "authorization": {"user": CLUSTER, "password": password},
            "routes": [
                f"nats://{CLUSTER}:{password}@{each.host}:{each.port}"
                for each in nodes
                if each is not node
            ],
        },
    }
