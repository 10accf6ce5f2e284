"""Configuration of the servers of one NATS cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolbus_cli.errors import CommandError

CLUSTER = "toolbus"
PORT = 6222
_NODE = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_-]{0,31})=([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?"
)


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
        raise CommandError("Two --node options have the same name; give each server its own.")
    if len(nodes) in (1, 2):
        raise CommandError(
            "A cluster needs at least three servers: of two, each loss stops both. Repeat --node "
            "for each server."
        )
    return nodes


def cluster_settings(node: Node, nodes: Sequence[Node], password: str) -> dict[str, Any]:
    """Return the settings of one server in addition to those of a single server."""
    return {
        "server_name": node.name,
        "cluster": {
            "name": CLUSTER,
            "host": "0.0.0.0",  # noqa: S104 - other machines connect; the password is required
            "port": node.port,
            "authorization": {"user": CLUSTER, "password": password},
            "routes": [
                f"nats://{CLUSTER}:{password}@{each.host}:{each.port}"
                for each in nodes
                if each is not node
            ],
        },
    }
