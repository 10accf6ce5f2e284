"""Late messages of a shared stdio server: each of two customers gets only its own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import calling, start_session
from harness.upstreams import late_message_server
from toolbus_common.config import Configuration, Customer, Server, User
from toolbus_common.contracts import ServersQuery, ServersReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

ANN, EVE = "tbk_ann_a-secret-of-late-words", "tbk_eve_another-secret-of-late-words"
WORD, OWN = "card-4929-of-ann", "word-of-eve"
SERVER = Server(
    command=(sys.executable, str(Path(late_message_server.__file__))), sessions="shared"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a gateway with two processes of the server: one shared by both customers, one for ann."""
    cluster = Cluster(tmp_path_factory.mktemp("late"))
    configuration = Configuration(
        servers={"late": SERVER, "own": SERVER},
        customers={"acme": Customer(), "rival": Customer()},
        users={"ann": User(customer="acme"), "eve": User(customer="rival")},
        keys={"ann": key(ANN, user="ann"), "eve": key(EVE, user="eve")},
    )
    with cluster.running(configuration, fused=True):
        cluster.until_listed(cluster.client(ANN), "late__stay", "own__stay")
        cluster.until_listed(cluster.client(EVE), "late__stay", "own__stay")
        yield cluster


def session(client: Client) -> str:
    """Open a session that receives log messages and answers requests."""
    session_id = start_session(client, {"elicitation": {}})
    client.request("logging/setLevel", {"level": "debug"}, Mcp_Session_Id=session_id)
    return session_id


def messages_of(client: Client, tool: str, word: str) -> list[dict[str, Any]]:
    """Return every message of one call's stream, accepting each request on it."""
    sid, found = session(client), list[dict[str, Any]]()
    with Events(client, calling(tool, 5, word=word), Mcp_Session_Id=sid) as stream:
        if stream.type == "application/json":  # there was no message before the result
            return [json.loads(stream.body)]
        while "result" not in (message := stream.next()):
            found.append(message)
            if message.get("method") == "elicitation/create":
                answer = {"action": "accept", "content": {"ok": True}}
                body = {"jsonrpc": "2.0", "id": message["id"], "result": answer}
                assert client.post(body, Mcp_Session_Id=sid).status == 202
    return [*found, message]


def dropped(cluster: Cluster) -> dict[str, int]:
    """Return the dropped messages of the server, from the status."""
    rows = cluster.on_the_bus(
        lambda bus: RequestReply(OPERATOR, bus).request(ServersQuery(), ServersReply)
    )
    (row,) = (each for each in rows.servers if each["name"] == "late")
    counts: dict[str, int] = row["dropped_messages"]
    return counts


def test_a_late_message_is_dropped_counted_and_logged_without_its_text(cluster: Cluster) -> None:
    ann, eve = cluster.client(ANN), cluster.client(EVE)
    messages_of(ann, "late__leave", WORD)
    received = messages_of(eve, "late__stay", OWN)
    assert WORD not in str(received)
    assert not any(each.get("method") == "elicitation/create" for each in received)
    assert "refused: The request cannot be attributed" in str(received[-1])
    counts = dropped(cluster)
    assert counts["request"] == 1
    assert counts["log"] >= 1
    log = "".join(process.log for process in cluster.every())
    assert "upstream.message_dropped" in log
    assert WORD not in log


def test_a_caller_gets_messages_and_requests_within_its_own_call(cluster: Cluster) -> None:
    ann = cluster.client(ANN)
    for word in ("first", "second"):
        received = messages_of(ann, "own__ask", word)
        methods = [each.get("method") for each in received]
        assert methods == ["notifications/message", "elicitation/create", None]
        assert received[0]["params"]["data"] == word
        assert "accept" in str(received[-1]["result"])
