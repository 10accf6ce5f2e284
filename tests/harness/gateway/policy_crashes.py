"""Calls during which policy is killed at a given step, and what each of them costs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import redis

from harness.clients.bus_operator import key
from harness.gateway.cluster import Cluster, Upstream
from harness.gateway.kill_campaign import redeliver_after
from harness.programs.crashing_policy import (
    CRASH,
    ENDED,
    EXECUTED,
    EXECUTED_FILE,
    EXECUTING,
    FORGET,
    HANDED_OVER,
    RECEIVED,
    RECORDED,
    RESERVED,
    SENT,
    SETTLED,
)
from harness.waits import until_blocking
from toolbus_common.config import Budget, Configuration, Period, Price, Server
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

ACTUAL, MAX_CHARGE = 1_200, 2_000  # micro-dollars: the charge of the outcome, and the reservation
PRICE = Price(call=ACTUAL / 1e6, kilobyte=0, maximum=MAX_CHARGE / 1e6)
FUSED = "ingress+policy+executor"
ENDING_SECONDS = 240.0  # a bound for a broken run
UNPAID = frozenset({RECEIVED, RESERVED})
RUNS = frozenset({HANDED_OVER, EXECUTING, EXECUTED, ENDED, SETTLED})
# Each step, and whether the outcome event is lost. In one process the hand-over is a plain call,
# and the outcome of a call in progress is lost with policy.
SEPARATE_POINTS = (
    (RECEIVED, False), (RESERVED, False), (SENT, False), (RECORDED, False), (HANDED_OVER, False),
    (HANDED_OVER, True), (EXECUTING, False), (EXECUTING, True), (EXECUTED, False), (ENDED, False),
    (ENDED, True), (SETTLED, False),
)  # fmt: skip
FUSED_POINTS = (
    (RECEIVED, False), (RESERVED, False), (SENT, False), (RECORDED, False), (EXECUTING, True),
    (EXECUTED, True), (ENDED, False), (SETTLED, False),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call: the step at which policy dies, and whether the outcome is lost."""

    step: str
    lost: bool
    number: int = 0

    @property
    def key(self) -> str:
        """The key of the call; each has its own budget."""
        return f"{self.step}-{'lost' if self.lost else 'kept'}-{self.number}"

    @property
    def secret(self) -> str:
        """The secret of the key."""
        return f"tbk_{self.key}_a-secret-of-crashes"

    @property
    def executed(self) -> int:
        """How often the upstream executes the call."""
        return int(self.step in RUNS)

    @property
    def charge(self) -> int:
        """Nothing without an intent, the reservation without an outcome, else the outcome."""
        if self.step in UNPAID:
            return 0
        return ACTUAL if self.executed and not self.lost else MAX_CHARGE


@dataclass(frozen=True)
class Charge:
    """What became of one call: executions, micro-dollars in the ledger and in the events."""

    executed: int
    spent: int
    held: int
    recorded: int
    unknown: int

    @classmethod
    def expected(cls, case: Case) -> "Charge":
        """Return what must become of a call."""
        unknown = int(case.charge == MAX_CHARGE)
        return cls(case.executed, case.charge, 0, case.charge, unknown)


class PolicyCrashes:
    """A cluster whose policy crashes on request; `fused` joins the call path in one process."""

    def __init__(self, directory: Path, cases: Sequence[Case], *, fused: bool) -> None:
        self.cases = cases
        self._fused = fused
        self._upstream = Upstream(directory / "upstream")
        self._cluster = Cluster(
            directory / "cluster", TOOLBUS_CALL_TIMEOUT="8", TOOLBUS_OUTCOME_GRACE="1"
        )
        self._cluster.program = "crashing_policy.py"
        self._callers = ThreadPoolExecutor(32)

    @contextmanager
    def running(self) -> Iterator["PolicyCrashes"]:
        """Run everything for the length of the block."""
        budget = Budget(usd=1, per=Period.MONTH)
        configuration = Configuration(
            servers={"echo": Server(url=self._upstream.url)},
            keys={case.key: key(case.secret, budget=budget) for case in self.cases},
            prices={"echo__*": PRICE},
        )
        with (
            self._upstream.running(),
            self._cluster.running(configuration, fused=self._fused) as cluster,
            self._callers,
        ):
            cluster.on_the_bus(lambda bus: redeliver_after(bus, 4.0))
            cluster.until_listed(cluster.client(self.cases[0].secret), "echo__say")
            yield self

    def crash(self, case: Case) -> None:
        """Make the call, let policy die at the step, and start a new policy."""
        if case.lost:
            with (self._cluster.state_dir / FORGET).open("a") as forgotten:
                forgotten.write(f"{case.key} ")
        policy = self._cluster.processes[FUSED if self._fused else "policy"].pop()
        crash, released = self._cluster.state_dir / CRASH, self._cluster.state_dir / case.key
        crash.write_text(f"{case.step} {case.key}")
        calling = self._call(case, released)
        if case.step == ENDED and case.lost:  # there is no outcome event at which policy could die
            assert calling.result() == case.key
            policy.kill()
        elif case.step == EXECUTING:
            until_blocking(lambda: self.executions()[case.key], "the call is executed")
            policy.kill()
        elif case.step == EXECUTED and not self._fused:
            executed = self._cluster.state_dir / EXECUTED_FILE
            until_blocking(executed.exists, "the call was executed")
            policy.kill()
            executed.unlink()
        until_blocking(lambda: not policy.alive, f"policy dies: {case.key}")
        policy.ended()
        crash.unlink()
        released.touch()
        self._restart(case)

    def charges(self) -> dict[Case, Charge]:
        """Return what became of each call, once nothing is held."""
        self._cluster.run("policy").wait_ready()  # two sweepers handle each call at most once
        until_blocking(
            lambda: not any(held for _, held in self._levels().values()),
            "nothing is held",
            ENDING_SECONDS,
        )
        expected = {case.key: case.charge for case in self.cases if case.charge}
        with suppress(AssertionError):  # the caller shows the difference
            until_blocking(lambda: self._recorded("sum(charge)") == expected, "", ENDING_SECONDS)
        levels, executions = self._levels(), self.executions()
        recorded = self._recorded("sum(charge)")
        unknown = self._recorded("countIf(endsWith(id, '.unknown'))")
        return {
            case: Charge(
                executions[case.key],
                *levels[case.key],
                recorded.get(case.key, 0),
                unknown.get(case.key, 0),
            )
            for case in self.cases
        }

    def executions(self) -> Counter[str]:
        """Return how often the upstream has received the call of each key."""
        return Counter(str(call["text"]) for call in self._upstream.arrived())

    def _call(self, case: Case, released: Path) -> Future[str]:
        client, arguments = self._cluster.client(case.secret), {"text": case.key}
        if case.step == EXECUTING:
            arguments["until"] = str(released)

        def call() -> str:
            with suppress(OSError, HTTPException):  # its ingress may die
                answer = client.call("echo__say", arguments)
                return answer.code or answer.text
            return ""

        return self._callers.submit(call)

    def _restart(self, case: Case) -> None:
        if self._fused:
            self._cluster.forget_port(0)
        self._cluster.run(FUSED if self._fused else "policy").wait_ready()
        if self._fused:
            client = self._cluster.client(case.secret)
            until_blocking(lambda: client.sees("echo__say"), "the tool is listed again")

    def _levels(self) -> dict[str, tuple[int, int]]:
        """Return what each key has spent and reserved."""
        found = {}
        with redis.Redis.from_url(self._cluster.valkey.url, decode_responses=True) as client:
            epoch = client.hget(customer_key("default", BOOK), "epoch")
            for case in self.cases:
                name = f"{{default}}:{epoch!s}:budget:key:{case.key}:usd:month:UTC"
                level: Any = client.hgetall(name)
                found[case.key] = int(level.get("spent", 0)), int(level.get("reserved", 0))
        return found

    def _recorded(self, what: str) -> dict[str, int]:
        """Return an aggregate of the outcomes of each key, where it is not 0."""
        rows = self._cluster.eventual_rows(
            f"SELECT key, {what} AS found FROM events"
            " WHERE event IN ('call.completed', 'call.failed') GROUP BY key HAVING found > 0"
        )
        return {row["key"]: int(row["found"]) for row in rows}
