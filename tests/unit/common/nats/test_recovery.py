"""Time until a NATS server that does not answer is given up."""

from toolbus_cli.commands.operate.nats_cluster import cluster_settings, parsed_nodes
from toolbus_common.nats.connection import PING_SECONDS, PINGS
from toolbus_common.nats.lame_duck.departure import LOOK_SECONDS, LOOKS, SHORT_PATIENCE
from toolbus_common.nats.lame_duck.isolation import PROBE_SECONDS
from toolbus_common.nats.lame_duck.movable_client import OVERLAP_SECONDS

DEMANDED = 6.0  # seconds in which calls succeed again after the fault of a NATS server


def test_unanswered_pings_end_a_connection_before_recovery_is_demanded() -> None:
    # Before the first ping that counts, there can be up to two that were answered or delayed.
    assert PING_SECONDS * (PINGS + 2) < DEMANDED


def test_servers_ping_their_clients_and_routes_like_clients_ping_them() -> None:
    nodes = parsed_nodes(["n1=10.0.0.1", "n2=10.0.0.2", "n3=10.0.0.3"])
    settings = cluster_settings(nodes[0], nodes, "secret")
    for section in (settings, settings["cluster"]):
        assert (section["ping_interval"], section["ping_max"]) == (f"{PING_SECONDS}s", PINGS)


def test_a_client_leaves_a_silent_server_before_recovery_is_demanded() -> None:
    looks = LOOKS * (LOOK_SECONDS + PROBE_SECONDS)
    assert looks + OVERLAP_SECONDS + SHORT_PATIENCE < DEMANDED
