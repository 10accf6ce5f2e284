"""Shutdown under load: every persistent connection gets its answer and is closed in order."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.clients.bus_operator import key
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster, Upstream
from harness.gateway.family_gateway import calling, start_session
from harness.network.raw_connections import CutError, RawHttp, posting
from harness.waits import until_blocking
from toolbus_common.config import Configuration, Server

SECRET = "tbk_bot_a-secret-of-leaving-connections"
CLIENTS = 40
LINES = (f"Authorization: Bearer {SECRET}", "Content-Type: application/json")


@dataclass
class Load:
    """Clients that send one request after another, each on a persistent connection."""

    addresses: list[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    cuts: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start; each client continues until the listener accepts no connection."""
        for number in range(CLIENTS):
            address = self.addresses[number % len(self.addresses)]
            thread = threading.Thread(target=self._work, args=(address, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Wait for all clients."""
        for thread in self._threads:
            thread.join()

    def _work(self, address: str, number: int) -> None:
        body = json.dumps(calling("echo__say", number, text="x")).encode()
        whole = posting("/mcp", body, *LINES)
        with suppress(ConnectionError):  # refused, or reset before the closing listener had it
            while True:
                with RawHttp(address) as connection:
                    self._send_until_closed(connection, whole)

    def _send_until_closed(self, connection: RawHttp, whole: bytes) -> None:
        """Send requests until an answer closes the connection."""
        request = 0
        try:
            while True:
                connection.send(whole)
                answer = connection.answer()
                request += 1
                self.outcomes[str(answer.status)] += 1
                if answer.closes:
                    self.outcomes["closed"] += 1
                    return
        except (CutError, ConnectionError) as error:
            # The kernel had accepted this connection, the closed listener had not: as good as
            # refused.
            if request or getattr(error, "partial", False):
                self.cuts.append(f"request {request + 1}: {error!r}")


@pytest.fixture(params=["fused", "separate"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream
) -> Iterator[Cluster]:
    """Run a gateway; separate services have two replicas."""
    fused = request.param == "fused"
    cluster = Cluster(tmp_path / "cluster", TOOLBUS_DRAIN_DELAY="4")
    configuration = Configuration(
        servers={"echo": Server(url=upstream.url)}, keys={"bot": key(SECRET)}
    )
    with cluster.running(configuration, fused=fused, replicas=1 if fused else 2):
        cluster.until_listed(cluster.client(SECRET), "echo__say")
        yield cluster


def ingresses(cluster: Cluster) -> list[str]:
    """Return the addresses of every ingress replica."""
    number = 1 if cluster.fused else 2
    return [cluster.client(SECRET, n).endpoint.removesuffix("/mcp") for n in range(number)]


def test_every_persistent_connection_is_closed_with_an_answer(cluster: Cluster) -> None:
    load = Load(ingresses(cluster))
    load.start()
    until_blocking(lambda: load.outcomes["200"] > 5 * CLIENTS, "the load is under way")
    leaving = [p for p in cluster.every() if "ingress" in p.services]
    for process in leaving:
        process.signal(signal.SIGTERM)
    load.finish()
    assert {process.ended() for process in leaving} == {0}
    assert not load.cuts, load.cuts
    assert set(load.outcomes) == {"200", "closed"}
    assert load.outcomes["closed"] >= CLIENTS


def test_readiness_ends_before_the_listener_and_idle_clients_are_closed(cluster: Cluster) -> None:
    address = ingresses(cluster)[0]
    process = next(p for p in cluster.every() if "ingress" in p.services)
    client = cluster.client(SECRET)
    session = start_session(client)
    with RawHttp(address) as idle, Events(client, Mcp_Session_Id=session) as stream:
        idle.send(posting("/mcp", json.dumps(calling("echo__say", 1, text="x")).encode(), *LINES))
        assert not idle.answer().closes
        process.signal(signal.SIGTERM)
        until_blocking(lambda: '"http.draining"' in process.log, "it is leaving")
        late = client.call("echo__say", {"text": "late"})
        assert (late.text, late.headers["connection"]) == ("late", "close")
        (items,) = (
            s for s in cluster.statuses() if s.pid == process.pid and s.service == "ingress"
        )
        assert not items.ready
        assert stream.ended()
        assert idle.ended()
    assert process.ended() == 0


def test_a_running_call_is_answered_after_the_listener_has_closed(
    cluster: Cluster, upstream: Upstream
) -> None:
    process = next(p for p in cluster.every() if "ingress" in p.services)
    body = json.dumps(calling("echo__wait", 1, id="long", seconds=3.0)).encode()
    with RawHttp(ingresses(cluster)[0]) as connection:
        connection.send(posting("/mcp", body, *LINES))
        until_blocking(lambda: any(c.get("id") == "long" for c in upstream.arrived()), "under way")
        process.signal(signal.SIGTERM)
        until_blocking(lambda: not takes(cluster.client(SECRET)), "the listener is closed")
        answer = connection.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert b"long" in answer.body
    assert process.ended() == 0


def takes(client: Client) -> bool:
    """Return whether the listener accepts a new connection."""
    try:
        client.get(client.endpoint.replace("/mcp", "/healthz"))
    except ConnectionError:
        return False
    return True
