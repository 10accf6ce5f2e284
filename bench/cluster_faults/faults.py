"""The faults, each of which ends with everything running again."""

import signal
import time
from collections.abc import Callable
from functools import partial

from cluster_faults.clock import clock_settings, set_clock
from cluster_faults.installation import REPLICAS, Installation
from cluster_faults.network import full
from figures import console
from harness.engines.nats_cluster import ClusterNode
from toolbus_common.service.names import SERVICES

AWAY = 8.0  # seconds that a server of the bus is away
RESTART = 2.0  # seconds until a killed service starts again
CLICKHOUSE_AWAY = 15.0
LAG = 3.0  # seconds; less than until the sentinel makes the replica follow again
HOUR = 3600
LAME_DUCK = 5.0  # seconds in which clients leave a server that will stop

# A fault returns when everything ran again, or when its end began if that is a disturbance too.
Fault = Callable[[Installation], float | None]
Node = Callable[[Installation], ClusterNode]


def no_fault(_place: Installation) -> None:
    """Do nothing: the figures of the load without a fault."""
    time.sleep(AWAY)


def node_killed(chosen: Node, place: Installation) -> None:
    """Kill a NATS server, and start it again."""
    node = chosen(place)
    node.kill()
    time.sleep(AWAY)
    node.start()


def node_stopped(chosen: Node, place: Installation) -> None:
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


def servers_cut(chosen: Node, place: Installation, *, one_way: bool = False) -> None:
    """Cut a NATS server from the other ones; the services reach each of them."""
    link = place.link(chosen(place))
    link.cut_from_servers(one_way=one_way)
    time.sleep(2 * AWAY)
    link.repair()


def services_cut(chosen: Node, place: Installation) -> None:
    """Cut a NATS server from all services; the servers reach each other."""
    link = place.link(chosen(place))
    link.cut_from_services()
    time.sleep(2 * AWAY)
    link.repair()


def link_slow(chosen: Node, place: Installation) -> None:
    """Give a NATS server a slow link that loses packets."""
    link = place.link(chosen(place))
    link.slow_down()
    time.sleep(2 * AWAY)
    console.print(*link.slow_traffic(), sep="\n")
    link.repair()


def node_disk_full(chosen: Node, place: Installation) -> float:
    """Fill the disk of a NATS server's streams; free it, and kill and start the server."""
    node = chosen(place)
    with full(node.store):
        time.sleep(2 * AWAY)
    killed = time.monotonic()
    node.kill()
    node.start()
    return killed


def audit_disk_full(place: Installation) -> None:
    """Fill the disks of both replicas of audit, and free them."""
    with full(*(each.state_dir for each in place.replicas["audit"])):
        time.sleep(2 * AWAY)


def clock_jumped(seconds: int, place: Installation) -> None:
    """Change the clock of the first replica of each service, and change it back."""
    file = place.directory / "clock"
    set_clock(file, 0)
    replicas = [place.replicas[service][0] for service in SERVICES]
    for each in replicas:
        each.end(signal.SIGTERM)
        each.start(**clock_settings(file))
    for jump in (seconds, 0):
        set_clock(file, jump)
        time.sleep(2 * AWAY)
    for each in replicas:
        each.end(signal.SIGTERM)
        each.start()


def valkey_killed(place: Installation) -> None:
    """Kill Valkey's primary, and start it with its data before the sentinel exchanges it."""
    server = place.valkey.primary
    server.kill()
    server.start()


def valkey_emptied(place: Installation) -> None:
    """Kill Valkey's primary, and start it without its data; the replica becomes empty too."""
    place.valkey.empty()


def valkey_failed_over(place: Installation) -> None:
    """Kill Valkey's primary; the sentinel promotes the replica, which follows it closely."""
    _fail_over(place)


def valkey_failed_over_late(place: Installation) -> None:
    """Let the replica fall back for some seconds before it is promoted."""
    place.valkey.detach()
    time.sleep(LAG)
    _fail_over(place)


def valkey_failed_over_empty(place: Installation) -> None:
    """Promote a replica that has nothing."""
    place.valkey.detach(flush=True)
    _fail_over(place)


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
        node.signal(signal.SIGUSR2)  # lame duck mode: clients and leaders move to the others
        time.sleep(LAME_DUCK)
        node.stop()
        node.start()
        place.until_whole()


def _fail_over(place: Installation) -> None:
    killed = place.valkey.fail_over()
    time.sleep(AWAY)
    place.valkey.join(killed)


def _follower(number: int, place: Installation) -> ClusterNode:
    return place.follower(number)


LEADER = "leader of the stream"
NODES: dict[str, Node] = {
    LEADER: Installation.leader,
    "first follower": partial(_follower, 0),
    "second follower": partial(_follower, 1),
}
FAULTS: dict[str, Fault] = {
    "none": no_fault,
    **{f"NATS, {name}, killed": partial(node_killed, node) for name, node in NODES.items()},
    **{f"NATS, {name}, SIGSTOP": partial(node_stopped, node) for name, node in NODES.items()},
    f"NATS, {LEADER}, cut from the servers": partial(servers_cut, Installation.leader),
    "NATS, first follower, cut from the servers": partial(servers_cut, NODES["first follower"]),
    f"NATS, {LEADER}, cannot send to the servers": partial(
        servers_cut, Installation.leader, one_way=True
    ),
    f"NATS, {LEADER}, cut from the services": partial(services_cut, Installation.leader),
    "NATS, first follower, cut from the services": partial(services_cut, NODES["first follower"]),
    f"NATS, {LEADER}, slow link": partial(link_slow, Installation.leader),
    f"NATS, {LEADER}, disk full": partial(node_disk_full, Installation.leader),
    "NATS, first follower, disk full": partial(node_disk_full, NODES["first follower"]),
    **{f"{service} killed": partial(service_killed, service) for service in SERVICES},
    "Valkey killed": valkey_killed,
    "Valkey restarted empty": valkey_emptied,
    "Valkey failed over": valkey_failed_over,
    "Valkey failed over to a lagging replica": valkey_failed_over_late,
    "Valkey failed over to an empty replica": valkey_failed_over_empty,
    "audit, disk full": audit_disk_full,
    "clocks one hour ahead, and back": partial(clock_jumped, HOUR),
    "clocks one hour behind, and back": partial(clock_jumped, -HOUR),
    "ClickHouse killed": clickhouse_killed,
    "rolling restart": everything_restarted,
}
