"""The faults, each of which ends with everything running again."""

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial

from cluster_faults.installation import REPLICAS, Installation
from harness.engines.nats_cluster import ClusterNode
from toolbus_common.service.names import SERVICES

AWAY = 8.0  # seconds that a server of the bus is away
RESTART = 2.0  # seconds until a killed service starts again
CLICKHOUSE_AWAY = 15.0

Fault = Callable[[Installation], None]


def no_fault(_place: Installation) -> None:
    """Do nothing: what the load comes to on its own."""
    time.sleep(AWAY)


def node_killed(chosen: Callable[[Installation], ClusterNode], place: Installation) -> None:
    """Kill a NATS server, and start it again."""
    node = chosen(place)
    node.kill()
    time.sleep(AWAY)
    node.start()


def node_stopped(chosen: Callable[[Installation], ClusterNode], place: Installation) -> None:
    """Stop a NATS server with SIGSTOP: its connections stay open, and it answers nothing."""
    node = chosen(place)
    node.freeze()
    time.sleep(2 * AWAY)
    node.thaw()


def service_killed(service: str, place: Installation) -> None:
    """Kill one of the two replicas, and start it again."""
    replica = place.replicas[service][0]
    replica.end(signal.SIGKILL)
    time.sleep(RESTART)
    replica.start()


def valkey_killed(place: Installation) -> None:
    """Kill Valkey, and start it with its data."""
    place.valkey.kill()
    place.valkey.start()


def valkey_emptied(place: Installation) -> None:
    """Kill Valkey, and start it without its data."""
    place.valkey.kill()
    for path in place.valkey.directory.glob("appendonly*"):
        shutil.rmtree(path)
    place.valkey.start()


def clickhouse_killed(place: Installation) -> None:
    """Kill ClickHouse, and start it again."""
    place.clickhouse.kill()
    time.sleep(CLICKHOUSE_AWAY)
    place.clickhouse.start()


def everything_restarted(place: Installation) -> None:
    """Restart every replica and every NATS server by SIGTERM, one after another."""
    for number in range(REPLICAS):
        for service in SERVICES:
            replica = place.replicas[service][number]
            replica.end(signal.SIGTERM)
            replica.start()
    for node in place.nodes:
        node.stop()
        node.start()
        place.until_whole()


def _follower(number: int, place: Installation) -> ClusterNode:
    return place.follower(number)


NODES: dict[str, Callable[[Installation], ClusterNode]] = {
    "leader of the stream": Installation.leader,
    "first follower": partial(_follower, 0),
    "second follower": partial(_follower, 1),
}
FAULTS: dict[str, Fault] = {
    "none": no_fault,
    **{f"NATS, {name}, killed": partial(node_killed, node) for name, node in NODES.items()},
    **{f"NATS, {name}, SIGSTOP": partial(node_stopped, node) for name, node in NODES.items()},
    **{f"{service} killed": partial(service_killed, service) for service in SERVICES},
    "Valkey killed": valkey_killed,
    "Valkey restarted empty": valkey_emptied,
    "ClickHouse killed": clickhouse_killed,
    "rolling restart": everything_restarted,
}
