"""Clients of both families in front of a session-based server that sends requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.clients.bus_operator import key
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import ROOT, calling, request, start_session
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Server

PAGE = "https://example.org/sign-in"
PAGES: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
SIGN_IN = "old__test_url_elicitation_required"


class SessionBasedGateway:
    """A fused gateway, and its only server."""

    def __init__(self, directory: Path) -> None:
        self.server = FixtureServer(directory / "fixture", "--family", "legacy")
        self.cluster = Cluster(directory / "cluster")

    def start(self) -> None:
        """Start both, and wait until the tools are listed."""
        self.server.start()
        servers, keys = {"old": Server(url=self.server.url)}, {"root": key(ROOT)}
        self.cluster.start(Configuration(servers=servers, keys=keys), fused=True)
        self.cluster.until_listed(self.client(), SIGN_IN)

    def stop(self) -> None:
        """Stop everything."""
        self.cluster.stop()
        self.server.kill()

    def client(self) -> Client:
        """Return a client of the gateway."""
        return self.cluster.client(ROOT)

    def cancelled(self, tool: str) -> bool:
        """Return whether the server received a cancellation of a call of the tool."""
        return bool(self.server.seen()["cancelled"].get(tool))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionBasedGateway]:
    """Run the gateway of these tests."""
    gateway = SessionBasedGateway(tmp_path_factory.mktemp("old"))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


# -- a call that waits for its client --------------------------------------------------------------


def test_a_call_cancelled_during_a_request_is_cancelled_at_the_server(
    gateway: SessionBasedGateway,
) -> None:
    client = gateway.client()
    session = start_session(client, {"elicitation": {}})
    gateway.server.forget()
    call = calling("old__test_elicitation", 5, message="Who?")
    with Events(client, call, Mcp_Session_Id=session) as stream:
        stream.until("elicitation/create")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        about = {**cancelled, "params": {"requestId": 5}}
        assert client.post(about, Mcp_Session_Id=session).status == 202
        assert stream.next()["error"]["data"]["code"] == "cancelled"
    until_blocking(lambda: gateway.cancelled("test_elicitation"), "the cancellation at the server")


def test_a_rejected_request_reaches_the_server_which_ends_its_call(
    gateway: SessionBasedGateway,
) -> None:
    client = gateway.client()
    session = start_session(client, {"sampling": {}})
    with Events(
        client, calling("old__test_sampling", 6, prompt="p"), Mcp_Session_Id=session
    ) as stream:
        request = stream.until("sampling/createMessage")
        refused = {"code": -1, "message": "No model here"}
        answer = {"jsonrpc": "2.0", "id": request["id"], "error": refused}
        assert client.post(answer, Mcp_Session_Id=session).status == 202
        assert stream.next()["error"] == refused, "the server's own answer to its call"
    assert not gateway.cancelled("test_sampling")


def test_a_call_whose_request_cannot_be_delivered_is_cancelled_at_the_server(
    gateway: SessionBasedGateway,
) -> None:
    client = gateway.client()
    session = start_session(client, {"elicitation": {}})
    gateway.server.forget()
    call = calling("old__test_elicitation", 7, message="Who?")
    answer = client.post(call, Mcp_Session_Id=session, Accept="application/json")
    assert "text/event-stream" in answer.error["message"]
    until_blocking(lambda: gateway.cancelled("test_elicitation"), "the cancellation at the server")


# -- a page that must be opened first --------------------------------------------------------------


def test_a_stateless_client_is_asked_to_open_the_page(gateway: SessionBasedGateway) -> None:
    client, params = gateway.client(), {"name": SIGN_IN, "arguments": {}}
    result = request(client, "tools/call", params, **PAGES).json["result"]
    assert result["resultType"] == "input_required"
    ((name, question),) = result["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert (question["params"]["mode"], question["params"]["url"]) == ("url", PAGE)
    assert "elicitationId" not in question["params"], "the stateless family has none"
    again = {**params, "inputResponses": {name: {"action": "accept"}}}
    if "requestState" in result:
        again["requestState"] = result["requestState"]
    before = gateway.server.seen()["tools"]["test_url_elicitation_required"]
    assert request(client, "tools/call", again, **PAGES).json["result"]["inputRequests"]
    assert gateway.server.seen()["tools"]["test_url_elicitation_required"] == before + 1
    again["inputResponses"] = {name: {"action": "decline"}}
    declined = request(client, "tools/call", again, **PAGES).json["result"]
    assert declined["isError"]
    assert gateway.server.seen()["tools"]["test_url_elicitation_required"] == before + 1


@pytest.mark.parametrize("able", [{}, {"elicitation": {"form": {}}}])
def test_a_stateless_client_without_pages_gets_the_url_in_an_error(
    gateway: SessionBasedGateway, able: dict[str, Any]
) -> None:
    """Check that the error code of the session-based family reaches no stateless client."""
    answer = request(gateway.client(), "tools/call", {"name": SIGN_IN, "arguments": {}}, **able)
    assert (answer.status, answer.error["code"]) == (400, -32021)
    assert answer.error["data"]["requiredCapabilities"] == {"elicitation": {"url": {}}}
    assert PAGE in answer.error["message"]


def test_a_session_based_client_gets_the_original_error(gateway: SessionBasedGateway) -> None:
    client = gateway.client()
    session = start_session(client, PAGES)
    result = client.post(calling(SIGN_IN, 8), Mcp_Session_Id=session).error
    assert result["code"] == -32042
    (page,) = result["data"]["elicitations"]
    assert (page["mode"], page["url"]) == ("url", PAGE)
    assert page["elicitationId"] == "fixture-elicitation-2"


def test_without_a_stateless_server_lists_may_be_cached_briefly(
    gateway: SessionBasedGateway,
) -> None:
    for method in ("server/discover", "tools/list"):
        assert request(gateway.client(), method).json["result"]["ttlMs"] == 5000
