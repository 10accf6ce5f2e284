"""Isolation of keys through a whole gateway, whose executors have two replicas."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from harness.clients.bus_operator import key, servers_with_sessions
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import calling, request, start_session
from harness.services.executor_pair import COMMAND, SDK_COMMAND, Stateful
from harness.waits import until_blocking
from toolbus_cli.views.upstream_sessions import table_of
from toolbus_common.config import Configuration

ANN, BOB, ANNS = (f"tbk_{name}_a-secret-of-sessions-apart" for name in ("ann", "bob", "anns"))
SERVERS = ("stdio", "http", "sse")
TURNS = 3


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with a stateful server of each kind; separate services have two replicas."""
    over = [Stateful(tmp_path_factory.mktemp(kind), kind) for kind in SERVERS[1:]]
    # Each owner has a process, which starts slowly on a busy machine.
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), TOOLBUS_CALL_TIMEOUT="90")
    fused = request.param == "fused"
    try:
        for each in over:
            each.start()
        declared = Configuration.model_validate(
            {
                "servers": {
                    "stdio": {"command": SDK_COMMAND},
                    "legacy": {"command": COMMAND, "protocol": "legacy"},
                    "http": {"url": over[0].url},
                    "sse": {"sse": over[1].url},
                },
                "users": {"ann": {}},
                "keys": {
                    "ann": key(ANN, user="ann"),
                    "anns": key(ANNS, user="ann"),
                    "bob": key(BOB),
                },
            }
        )
        cluster.start(declared, fused=fused, replicas=1 if fused else 2, additional=("codemode",))
        cluster.until_listed(
            cluster.client(ANN), *(f"{server}__recall" for server in (*SERVERS, "legacy"))
        )
        yield cluster
    finally:
        cluster.stop()
        for each in over:
            each.kill()


def stateless(client: Client, tool: str, **arguments: str) -> str:
    return request(client, "tools/call", {"name": tool, "arguments": arguments}).text


def answers(client: Client, tool: str) -> bool:
    """Return whether a call has a result."""
    return "result" in request(client, "tools/call", {"name": tool, "arguments": {}}).json


def with_handshake(client: Client, tool: str, **arguments: str) -> str:
    return client.post(calling(tool, 1, **arguments), Mcp_Session_Id=start_session(client)).text


def by_program(client: Client, tool: str, **arguments: str) -> str:
    server, _, own = tool.partition("__")
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    at = Client(f"{client.endpoint}?mode=code", client.key)
    return at.call("executeToolCode", {"code": f"result = {server}.{own}({text})['result']"}).text


@pytest.mark.parametrize("server", ["legacy", "http", "sse"])
def test_state_at_a_server_is_visible_to_its_user_only(cluster: Cluster, server: str) -> None:
    callers = (stateless, with_handshake, by_program)
    ann, bob, anns = (cluster.client(secret) for secret in (ANN, BOB, ANNS))
    for turn in range(TURNS):
        for number, call in enumerate(callers):
            call(ann, f"{server}__remember", text=f"a{turn}{number}")
            call(bob, f"{server}__remember", text=f"b{turn}{number}")
    numbers = [f"{turn}{number}" for turn in range(TURNS) for number in range(len(callers))]
    for client, letter in ((ann, "a"), (anns, "a"), (bob, "b")):
        whole = ",".join(letter + number for number in numbers)
        for call in callers:
            fields = {call(client, f"{server}__recall") for _ in range(TURNS)}
            assert {each.strip('"') for each in fields} == {whole}


def test_a_process_of_both_families_keeps_separate_state_for_each_family(cluster: Cluster) -> None:
    ann, anns = cluster.client(ANN), cluster.client(ANNS)
    stateless(ann, "stdio__remember", text="of the stateless")
    with_handshake(ann, "stdio__remember", text="with a handshake")
    by_program(anns, "stdio__remember", text="of a program")  # whose caller is session-based
    assert stateless(anns, "stdio__recall") == "of the stateless"
    assert with_handshake(anns, "stdio__recall") == "with a handshake,of a program"


def test_status_names_the_owners_of_sessions_and_no_secret(cluster: Cluster) -> None:
    stateless(cluster.client(ANN), "stdio__remember", text="something private")

    def held_by_ann() -> list[dict[str, Any]] | None:
        """Return the servers; None while an executor has not replied in time."""
        found: list[dict[str, Any]] = cluster.on_the_bus(servers_with_sessions)
        (sessions,) = (each["sessions"] for each in found if each["name"] == "stdio")
        owners = {each["owner"] for each in sessions["sessions"]} if sessions else set()
        return found if "user ann" in owners else None

    result = until_blocking(held_by_ann, "the executor of the session replies")
    (sessions,) = (each["sessions"] for each in result if each["name"] == "stdio")
    assert {each["owner"] for each in sessions["sessions"]} <= {"user ann", "key bob"}
    assert all(each["executor"] for each in sessions["sessions"])
    assert sessions["limit"] == 32
    assert ANN not in json.dumps(result)
    assert "something private" not in json.dumps(result)
    assert {row[1] for row in table_of(result, str)} >= {"user ann"}


def test_sessions_of_a_killed_executor_start_again_at_another_replica(cluster: Cluster) -> None:
    if cluster.fused:
        return  # there is no other replica
    ann, bob = cluster.client(ANN), cluster.client(BOB)
    for server in SERVERS:
        stateless(ann, f"{server}__remember", text="a")
        stateless(bob, f"{server}__remember", text="b")
    cluster.processes["executor"][0].kill()
    for server in SERVERS:
        # A call that the killed replica received before the bus lost it has no outcome.
        until_blocking(partial(answers, ann, f"{server}__recall"), f"{server} has another replica")
        for client, other in ((ann, "b"), (bob, "a")):
            stateless(client, f"{server}__remember", text="again")
            fields = {stateless(client, f"{server}__recall") for _ in range(TURNS)}
            assert len(fields) == 1, "one session goes on being used"
            assert other not in fields.pop().replace("again", "")
