"""SIGTERM under load: every kept connection gets its answer, and is told that it was the last."""

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
    """Clients that ask one request after another, each on a connection it keeps."""

    addresses: list[str]
    heard: Counter[str] = field(default_factory=Counter)
    cuts: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin; each goes on until the listener takes no connection any more."""
        for number in range(CLIENTS):
            address = self.addresses[number % len(self.addresses)]
            thread = threading.Thread(target=self._work, args=(address, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Wait for all."""
        for thread in self._threads:
            thread.join()

    def _work(self, address: str, number: int) -> None:
        body = json.dumps(calling("echo__say", number, text="x")).encode()
        whole = posting("/mcp", body, *LINES)
        with suppress(ConnectionRefusedError):
            while True:
                with RawHttp(address) as connection:
                    self._ask_until_told(connection, whole)

    def _ask_until_told(self, connection: RawHttp, whole: bytes) -> None:
        """Ask until an answer says that it was the last of this connection."""
        request = 0
        try:
            while True:
                connection.send(whole)
                answer = connection.answer()
                request += 1
                self.heard[str(answer.status)] += 1
                if answer.closes:
                    self.heard["told"] += 1
                    return
        except (CutError, ConnectionError) as error:
            # The kernel had taken this connection, the closed listener had not: as good as refused.
            if request or getattr(error, "begun", False):
                self.cuts.append(f"request {request + 1}: {error!r}")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """What the calls reach."""
    with Upstream(tmp_path_factory.mktemp("upstream")).running() as server:
        yield server


@pytest.fixture(params=["fused", "separate"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream
) -> Iterator[Cluster]:
    """A gateway; apart, every service has two replicas."""
    fused = request.param == "fused"
    made = Cluster(tmp_path / "cluster", TOOLBUS_LEAVE_SECONDS="4")
    configuration = Configuration(
        servers={"echo": Server(url=upstream.url)}, keys={"bot": key(SECRET)}
    )
    try:
        made.start(configuration, fused=fused, replicas=1 if fused else 2)
        made.until_listed(made.client(SECRET), "echo__say")
        yield made
    finally:
        made.stop()


def ingresses(cluster: Cluster) -> list[str]:
    """The addresses of every replica of the edge."""
    number = 1 if cluster.fused else 2
    return [cluster.client(SECRET, n).endpoint.removesuffix("/mcp") for n in range(number)]


def test_no_kept_connection_is_cut_and_each_is_told_that_it_ends(cluster: Cluster) -> None:
    load = Load(ingresses(cluster))
    load.start()
    until_blocking(lambda: load.heard["200"] > 5 * CLIENTS, "the load is under way")
    leaving = [p for p in cluster.every() if "ingress" in p.services]
    for process in leaving:
        process.signal(signal.SIGTERM)
    load.finish()
    assert {process.ended() for process in leaving} == {0}
    assert not load.cuts, load.cuts
    assert set(load.heard) == {"200", "told"}
    assert load.heard["told"] >= CLIENTS


def test_the_readiness_goes_before_the_listener_and_idle_clients_are_closed(
    cluster: Cluster,
) -> None:
    address = ingresses(cluster)[0]
    process = next(p for p in cluster.every() if "ingress" in p.services)
    client = cluster.client(SECRET)
    session = start_session(client)
    with RawHttp(address) as idle, Events(client, Mcp_Session_Id=session) as stream:
        idle.send(posting("/mcp", json.dumps(calling("echo__say", 1, text="x")).encode(), *LINES))
        assert not idle.answer().closes
        process.signal(signal.SIGTERM)
        until_blocking(lambda: '"http.leaving"' in process.log, "it is leaving")
        late = client.call("echo__say", {"text": "late"})
        assert (late.text, late.headers["connection"]) == ("late", "close")
        (items,) = (
            s for s in cluster.statuses() if s.pid == process.pid and s.service == "ingress"
        )
        assert not items.ready
        assert stream.ended()
        assert idle.ended()
    assert process.ended() == 0


def test_a_call_under_way_is_answered_after_the_listener_has_closed(
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
    """Whether a new connection is taken."""
    try:
        client.get(client.endpoint.replace("/mcp", "/healthz"))
    except ConnectionError:
        return False
    return True
