"""Policy killed at every step of a call, with and without its outcome: calls that ran pay once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import redis

from harness.clients.bus_operator import key
from harness.gateway.cluster import Cluster, Upstream
from harness.gateway.kill_campaign import redeliver_after
from harness.programs.crashing_policy import CRASH, ENDED, FORGET, HANDED_OVER, RESERVED, STEPS
from harness.waits import until_blocking
from toolbus_common.config import Budget, Configuration, Period, Price, Server
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

ACTUAL, MAX_CHARGE = 1_200, 2_000  # micro-dollars: the charge of the outcome, and the reservation
PRICE = Price(call=ACTUAL / 1e6, kilobyte=0, maximum=MAX_CHARGE / 1e6)
RUNS = frozenset({HANDED_OVER, ENDED})


@dataclass(frozen=True)
class Case:
    """A step at which policy dies, and whether the outcome is lost."""

    step: str
    lost: bool

    @property
    def key(self) -> str:
        """The key of the case; each has its own budget."""
        return f"{self.step}-{'lost' if self.lost else 'kept'}"

    @property
    def secret(self) -> str:
        return f"tbk_{self.key}_a-secret-of-crashes"

    @property
    def charge(self) -> int:
        """Nothing without an intent, the reservation without an outcome, else the outcome."""
        if self.step == RESERVED:
            return 0
        return ACTUAL if self.step in RUNS and not self.lost else MAX_CHARGE


CASES = [Case(step, lost) for step in STEPS for lost in (False, True)]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream")).running() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Cluster]:
    """Run a policy that crashes on request and an executor that drops outcomes."""
    made = Cluster(
        tmp_path_factory.mktemp("cluster"), TOOLBUS_CALL_TIMEOUT="4", TOOLBUS_OUTCOME_GRACE="1"
    )
    made.program = "crashing_policy.py"
    budget = Budget(usd=1, per=Period.MONTH)
    with made.running(
        Configuration(
            servers={"echo": Server(url=upstream.url)},
            keys={case.key: key(case.secret, budget=budget) for case in CASES},
            prices={"echo__*": PRICE},
        )
    ):
        made.on_the_bus(lambda bus: redeliver_after(bus, 4.0))
        made.until_listed(made.client(CASES[0].secret), "echo__say")
        yield made


def crash(cluster: Cluster, case: Case) -> None:
    """Make one call, let policy die at the step, and start a new policy."""
    client = cluster.client(case.secret)
    if case.lost:
        with (cluster.state_dir / FORGET).open("a") as forgotten:
            forgotten.write(f"{case.key} ")
    policy = cluster.processes["policy"].pop()
    if case.step == ENDED and case.lost:  # there is no outcome event at which policy could die
        assert client.call("echo__say", {"text": case.key}).text == case.key
        policy.kill()
    else:
        (cluster.state_dir / CRASH).write_text(f"{case.step} {case.key}")
        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(client.call, "echo__say", {"text": case.key})
            until_blocking(lambda: not policy.alive, f"policy dies at {case.step}")
            (cluster.state_dir / CRASH).unlink()
            cluster.run("policy").wait_ready()
            calling.result()
        return
    cluster.run("policy").wait_ready()


def levels(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Return what each key has spent and reserved."""
    with redis.Redis.from_url(cluster.valkey.url, decode_responses=True) as client:
        epoch = client.hget(customer_key("default", BOOK), "epoch")
        found = {}
        for case in CASES:
            level = client.hgetall(f"{{default}}:{epoch!s}:budget:key:{case.key}:usd:month:UTC")
            assert isinstance(level, dict)
            found[case.key] = int(level.get("spent", 0)), int(level.get("reserved", 0))
    return found


def test_a_call_that_ran_is_charged_once_wherever_policy_is_killed(
    cluster: Cluster, upstream: Upstream
) -> None:
    for case in CASES:
        crash(cluster, case)
    cluster.run("policy").wait_ready()  # two sweepers handle each call at most once
    until_blocking(lambda: not any(held for _, held in levels(cluster).values()), "nothing is held")
    assert levels(cluster) == {case.key: (case.charge, 0) for case in CASES}
    arrived = Counter(str(call["text"]) for call in upstream.arrived())
    assert arrived == {case.key: 1 for case in CASES if case.step in RUNS}
    until_blocking(
        lambda: (
            charges_of_events(cluster) == {case.key: case.charge for case in CASES if case.charge}
        )
    )
    unknown = "SELECT key, count() AS n FROM events WHERE endsWith(id, '.unknown') GROUP BY key"
    named = {row["key"]: int(row["n"]) for row in cluster.rows(unknown)}
    assert named == {case.key: 1 for case in CASES if case.charge == MAX_CHARGE}


def charges_of_events(cluster: Cluster) -> dict[str, int]:
    """Return the charge of each key in the events, for calls that cost something."""
    rows = cluster.eventual_rows(
        "SELECT key, sum(charge) AS charged FROM events"
        " WHERE event IN ('call.completed', 'call.failed') GROUP BY key HAVING charged > 0"
    )
    return {row["key"]: int(row["charged"]) for row in rows}
