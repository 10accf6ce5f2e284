"""Services killed during calls: every call ends, no call runs or is charged twice."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPException
from itertools import count

import pytest
import redis

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster, Upstream
from harness.waits import PATIENCE, until_blocking
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

SECRET = "tbk_bot_a-secret-of-chaos-tests"
PRICE = 10_000  # micro-dollars
LEVEL = "{{default}}:{epoch}:budget:key:bot:usd:month:UTC"
WORKERS = 8
ENOUGH_IN_FLIGHT = 40
SETTLED_WITHIN = 2 * PATIENCE
BROKEN = (OSError, HTTPException)  # errors that a client gets from an ingress that dies under it
CLEAR = frozenset({  # the possible ends of a call besides its result when a process dies
    "bus_down", "policy_down", "executor_down", "outcome_unknown", "upstream_dead", "unavailable",
})  # fmt: skip
CONFIGURATION = Configuration(
    servers={"echo": Server(url="http://placeholder/mcp")},
    keys={"bot": key(SECRET, budget=Budget(usd=1000, per=Period.MONTH))},
    prices={"echo__*": PRICE / 1_000_000},
)
run_numbers = count(1)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """Run the upstream of the calls."""
    with Upstream(tmp_path_factory.mktemp("upstream")).running() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cluster]:
    """Run two replicas of every service; audit has one because its store is embedded."""
    made = Cluster(
        tmp_path_factory.mktemp("cluster"), TOOLBUS_CALL_TIMEOUT="8", TOOLBUS_OUTCOME_GRACE="1"
    )
    servers = {"echo": Server(url=upstream.url)}
    with made.running(CONFIGURATION.model_copy(update={"servers": servers}), replicas=2):
        made.until_listed(made.client(SECRET), "echo__wait")
        yield made


@dataclass
class Load:
    """Callers that call until they are stopped, with the result of each call."""

    clients: list[Client]
    upstream: Upstream
    run: str = field(default_factory=lambda: f"run{next(run_numbers)}")
    succeeded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def arrived(self) -> Counter[str]:
        """Return the calls of this load that reached the upstream."""
        ids = (str(call.get("id", "")) for call in self.upstream.arrived())
        return Counter(call for call in ids if call.startswith(f"{self.run}."))

    def through(self, cause: Callable[[], None]) -> "Load":
        """Run the load, cause the failure during calls, continue, and stop."""
        numbers = count(1)
        with ThreadPoolExecutor(WORKERS) as pool:
            workers = [pool.submit(self._work, client, numbers) for client in self._spread()]
            try:
                until_blocking(
                    lambda: sum(self.arrived().values()) >= ENOUGH_IN_FLIGHT, seconds=SETTLED_WITHIN
                )
                cause()
                already = len(self.succeeded)
                until_blocking(
                    lambda: len(self.succeeded) >= already + ENOUGH_IN_FLIGHT,
                    seconds=SETTLED_WITHIN,
                )
            finally:
                self._stop.set()
            for worker in workers:
                worker.result()
        return self

    def _spread(self) -> list[Client]:
        return [self.clients[n % len(self.clients)] for n in range(WORKERS)]

    def _work(self, client: Client, numbers: Iterator[int]) -> None:
        while not self._stop.is_set():
            call = f"{self.run}.{next(numbers)}"
            try:
                answer = client.call("echo__wait", {"id": call, "seconds": 0.02})
            except BROKEN:
                self.broken.append(call)
                self._stop.wait(0.05)
                continue
            if answer.code:
                self.failed[call] = answer.code
                self._stop.wait(0.05)
            else:
                assert answer.text == call
                self.succeeded.append(call)


@pytest.fixture
def load(cluster: Cluster, upstream: Upstream) -> Load:
    """Return callers of both ingress replicas."""
    return Load([cluster.client(SECRET, 0), cluster.client(SECRET, 1)], upstream)


def digest(call: str) -> str:
    """Return the arguments digest in a call's intent."""
    arguments = json.dumps({"id": call, "seconds": 0.02}, separators=(",", ":"))
    return sha256(arguments.encode()).hexdigest()


def ledger(cluster: Cluster) -> tuple[int, int]:
    """Return what the key has spent and reserved, in micro-dollars."""
    with redis.Redis.from_url(cluster.valkey.url, decode_responses=True) as client:
        epoch = client.hget(customer_key("default", BOOK), "epoch")
        level = client.hgetall(LEVEL.format(epoch=epoch))
    assert isinstance(level, dict)
    return int(level.get("spent", 0)), int(level.get("reserved", 0))


def charged_by_the_events(cluster: Cluster) -> int:
    """Return the charge of the outcome events, each call once."""
    rows = cluster.rows(
        "SELECT sum(c) AS total FROM (SELECT call_id, max(charge) AS c FROM events"
        " WHERE event IN ('call.completed', 'call.failed') AND sent GROUP BY call_id)"
    )
    return int(rows[0]["total"])


def check(cluster: Cluster, load: Load, clear: frozenset[str] = CLEAR) -> None:
    """Check the invariants that hold whatever was killed."""
    arrived = load.arrived()
    assert [call for call, times in arrived.items() if times > 1] == [], "run twice"
    assert set(load.succeeded) <= set(arrived)
    assert set(load.failed.values()) <= clear, load.failed
    until_blocking(lambda: ledger(cluster)[1] == 0, seconds=SETTLED_WITHIN)
    until_blocking(
        lambda: set(arrived_without_intent(cluster, arrived)) == set(), seconds=SETTLED_WITHIN
    )
    until_blocking(
        lambda: charged_by_the_events(cluster) == ledger(cluster)[0], seconds=SETTLED_WITHIN
    )
    doubled = "SELECT id FROM events GROUP BY id HAVING count() > 1"
    assert cluster.rows(doubled) == []
    outcomes = "SELECT uniqExact(call_id) AS n FROM events WHERE event = 'call.allowed'"
    allowed = int(cluster.rows(outcomes)[0]["n"])
    assert ledger(cluster)[0] <= allowed * PRICE, "charged more often than allowed"


def arrived_without_intent(cluster: Cluster, arrived: Counter[str]) -> list[str]:
    """Return calls that reached the upstream without a recorded intent."""
    (row,) = cluster.eventual_rows(
        "SELECT groupUniqArray(JSONExtractString(detail, 'arguments_digest')) AS digests"
        " FROM events WHERE event = 'call.allowed'"
    )
    recorded = set(row["digests"])
    return [call for call in arrived if digest(call) not in recorded]


@pytest.mark.parametrize("service", ["ingress", "policy", "executor"])
def test_killing_one_of_two_replicas_loses_and_doubles_nothing(
    cluster: Cluster, load: Load, service: str
) -> None:
    def kill() -> None:
        cluster.processes[service].pop(0).kill()

    load.through(kill)
    replacement = cluster.run(service)
    replacement.wait_ready()
    if service == "ingress":
        cluster.forget_port(0)
    else:
        assert load.broken == []
    check(cluster, load)


@pytest.mark.parametrize("service", ["policy", "executor"])
def test_callers_get_an_error_at_once_when_both_replicas_die(
    cluster: Cluster, load: Load, service: str
) -> None:
    def kill_both() -> None:
        for process in cluster.processes.pop(service):
            process.kill()
        until_blocking(lambda: f"{service}_down" in load.failed.values(), seconds=SETTLED_WITHIN)
        for _ in range(2):
            cluster.run(service)
        for process in cluster.processes[service]:
            process.wait_ready()

    load.through(kill_both)
    assert load.broken == []
    check(cluster, load)


def test_killing_audit_disturbs_no_call_and_loses_no_event(cluster: Cluster, load: Load) -> None:
    def kill() -> None:
        for process in cluster.processes.pop("audit"):
            process.kill()

    load.through(kill)
    cluster.run("audit").wait_ready()
    assert (load.broken, load.failed) == ([], {})
    check(cluster, load)


def test_killing_nats_refuses_calls_until_it_is_back_and_loses_no_event(
    cluster: Cluster, load: Load
) -> None:
    def kill() -> None:
        cluster.nats.kill()
        until_blocking(lambda: "bus_down" in load.failed.values(), seconds=SETTLED_WITHIN)
        cluster.nats.start()

    load.through(kill)
    assert load.broken == []
    check(cluster, load)


def test_killing_valkey_refuses_spending_until_it_is_back(cluster: Cluster, load: Load) -> None:
    def kill() -> None:
        cluster.valkey.kill()
        until_blocking(lambda: "ledger_down" in load.failed.values(), seconds=SETTLED_WITHIN)
        cluster.valkey.start()

    load.through(kill)
    assert load.broken == []
    check(cluster, load, clear=CLEAR | {"ledger_down"})


def test_two_replicas_of_each_service_share_the_load(cluster: Cluster, load: Load) -> None:
    began = int(time.time() * 1_000_000)
    load.through(lambda: None)
    check(cluster, load)
    for event in ("call.allowed", "call.completed"):
        rows = cluster.rows(
            f"SELECT producer, count() AS n FROM events WHERE event = '{event}'"
            f" AND toUnixTimestamp64Micro(at) >= {began} GROUP BY producer ORDER BY n"
        )
        assert len(rows) == 2, event
        assert int(rows[0]["n"]) * 4 >= int(rows[1]["n"]), rows
