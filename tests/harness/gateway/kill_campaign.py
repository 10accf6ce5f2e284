"""Gateway under constant load, while one of its processes is killed repeatedly."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

from harness.clients.bus_operator import key
from harness.clients.steady_load import KINDS, Load
from harness.gateway.cluster import Cluster, Upstream
from harness.services.ledger_totals import spent_and_reserved
from harness.waits import until_blocking
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS

KEY, CODER = "tbk_bot_a-secret-of-the-killing", "tbk_coder_a-secret-of-the-killing"
MID_INSERT = "audit mid-insert"
VICTIMS = (
    "ingress", "policy", "executor", "codemode", "oauth", "audit", MID_INSERT, "nats", "valkey",
)  # fmt: skip
BUDGET = Budget(usd=1_000_000, per=Period.MONTH)
PRICE = 0.001
SETTLE_SECONDS = 240.0  # maximum; unacknowledged messages of a killed policy return after 30 s
ALIKE = 3  # equal consecutive reads after which a result is final
AT_ONCE = 20_000  # rows of 100 bytes per query, because replies of audit are limited
# The charge of each call: that of its first outcome, or unknown without an outcome.
_CHARGED = """
SELECT sum(if(ends > 0, charged, unknown_charge)) FROM (
    SELECT call_id, countIf(NOT intent AND NOT unknown) AS ends,
        argMinIf(charge, (stream_seq, line), NOT intent AND NOT unknown) AS charged,
        maxIf(charge, unknown) AS unknown_charge
    FROM (SELECT *, event = 'call.allowed' AS intent, endsWith(id, '.unknown') AS unknown
        FROM events WHERE event IN ('call.allowed', 'call.completed', 'call.failed'))
    GROUP BY call_id)
"""
_OPEN = """
SELECT countIf(intents > 0 AND ends = 0), countIf(intents = 0 AND ends > 0), sum(named) FROM (
    SELECT call_id, countIf(event = 'call.allowed') AS intents,
        countIf(event IN ('call.completed', 'call.failed')) AS ends,
        max(endsWith(id, '.unknown')) AS named
    FROM events WHERE event IN ('call.allowed', 'call.completed', 'call.failed') GROUP BY call_id)
"""
# Producers number their events per customer without gaps.
_GAPS = """
SELECT sum(newest - n) FROM (
    SELECT producer, customer, max(seq) AS newest, uniqExact(seq) AS n FROM events
    GROUP BY producer, customer)
"""


@dataclass
class Figures:
    """The result. All fields after `seconds` must be 0. Charges are in micro-dollars."""

    victim: str
    kills: int = 0
    calls: int = 0
    answered: int = 0
    broken: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    events: int = 0
    recovered: list[float] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0
    missing: int = 0
    doubled_rows: int = 0
    run_twice: int = 0
    wrong: int = 0
    drift: int = 0
    reserved: int = 0

    @property
    def sound(self) -> bool:
        """Whether no call and no charge is unresolved."""
        return not (self.lost or self.missing or self.drift or self.reserved)

    @property
    def clean(self) -> bool:
        """Whether all invariants hold."""
        return self.sound and not (self.doubled_rows or self.run_twice or self.wrong)


class KillCampaign:
    """All services as separate processes, with real engines and a real upstream."""

    def __init__(self, directory: Path, rate: float, **environment: str) -> None:
        self.upstream = Upstream(directory / "upstream")
        self.cluster = Cluster(directory, **environment)
        self._rate = rate
        self._random = random.Random(7)

    @contextmanager
    def running(self, again: float = 0.0) -> Iterator["KillCampaign"]:
        """Run all processes. Unacknowledged events are redelivered after `again` seconds."""
        self.upstream.start()
        try:
            self.cluster.start(self._configuration(), additional=("codemode", "oauth"))
            if again:
                self.cluster.on_the_bus(lambda bus: redeliver_after(bus, again))
            self.cluster.until_listed(self.cluster.client(KEY), "echo__count", "free__count")
            coder = self.cluster.client(CODER)
            until_blocking(lambda: coder.sees("executeToolCode"), "code mode")
            yield self
        finally:
            self.cluster.stop()
            self.upstream.kill()

    def kill(self, victim: str, kills: int, pause: tuple[float, float] = (0.5, 1.5)) -> Figures:
        """Kill one process repeatedly under load. Return the figures when all calls are settled."""
        began, found = time.monotonic(), Figures(victim)
        with self.loaded() as load:
            until_blocking(lambda: len(load.succeeded) > self._rate / 2, "calls succeed")
            for _ in range(kills):
                at = time.monotonic()
                self._kill(victim)
                self._until_well(load)
                found.recovered.append(round(time.monotonic() - at, 2))
                found.kills += 1
                time.sleep(self._random.uniform(*pause))
            if victim == MID_INSERT:
                self._end_audit()
                self.cluster.run("audit").wait_ready()
        self._look(found, load)
        found.seconds = round(time.monotonic() - began, 1)
        return found

    def looked(self, what: str, load: Load) -> Figures:
        """Return the figures of a load when all calls are settled."""
        found = Figures(what)
        self._look(found, load)
        return found

    @contextmanager
    def loaded(self) -> Iterator[Load]:
        """Run the load in a thread until the context ends and the last call has a response."""
        load = Load(lambda: self.cluster.client(KEY).endpoint, KEY, CODER, self._rate)
        thread = Thread(target=lambda: asyncio.run(load.work()))
        thread.start()
        try:
            yield load
        finally:
            load.stop()
            thread.join()

    def _configuration(self) -> Configuration:
        return Configuration(
            servers={name: Server(url=self.upstream.url) for name in ("echo", "free")},
            keys={
                "bot": key(KEY, budget=BUDGET),
                "coder": key(CODER, budget=BUDGET, code_mode=True),
            },
            prices={"echo__*": PRICE},
        )

    # -- killing -----------------------------------------------------------------------------

    def _kill(self, victim: str) -> None:
        """Kill a process with SIGKILL, and restart it."""
        if victim == MID_INSERT:
            self._kill_mid_insert()
        elif victim in ("nats", "valkey"):
            engine = self.cluster.nats if victim == "nats" else self.cluster.valkey
            engine.kill()
            engine.start()
        else:
            self.cluster.processes[victim].pop().kill()
            started = self.cluster.run(victim)
            if victim == "ingress":
                self.cluster.forget_port(0)
            started.wait_ready()

    def _kill_mid_insert(self) -> None:
        if self.cluster.processes["audit"][0].program == "plain_services.py":
            self._end_audit()
            self.cluster.run("audit", "dying_audit.py")
        dying = self.cluster.processes["audit"].pop()
        until_blocking(lambda: not dying.alive, "audit dies in the middle of an insert")
        self.cluster.run("audit", "dying_audit.py").wait_ready()

    def _end_audit(self) -> None:
        self.cluster.processes["audit"].pop().kill()

    def _until_well(self, load: Load) -> None:
        """Wait until new calls succeed: a paid call, a free call, and the call of a program."""
        now = time.monotonic()
        for kind in ("count", "free", "program"):
            until_blocking(
                lambda kind=kind: any(  # type: ignore[misc]
                    each.began > now and each.call.kind == kind for each in load.succeeded[-200:]
                ),
                f"a call succeeds again: {kind}",
            )

    # -- figures -----------------------------------------------------------------------------

    def _look(self, found: Figures, load: Load) -> None:
        """Read the figures until they stop changing, or until no late message is possible."""
        found.calls, found.answered, found.broken = load.made, len(load.succeeded), load.broken
        found.failed, found.wrong = dict(load.failed), len(load.wrong)
        give_up = time.monotonic() + SETTLE_SECONDS
        alike, before = 0, -1
        while time.monotonic() < give_up and alike < ALIKE:
            self._account(found, load)
            alike = alike + 1 if found.sound and found.events == before else 0
            before = found.events
            time.sleep(0.5)

    def _account(self, found: Figures, load: Load) -> None:
        arrived = self._arrived(load.run)
        found.run_twice = len(arrived) - len(set(arrived))
        events, ids = self._row("SELECT count(), uniqExact(id) FROM events")
        found.events, found.doubled_rows = events, events - ids
        unresolved, unstarted, found.unknown = self._row(_OPEN)
        (found.missing,) = self._row(_GAPS)
        intents = self._digests("call.allowed")
        # A call whose reply was its executor's last message has the outcome "unknown".
        ended = self._digests("call.completed") + self._digests("call.failed")
        digests = {digest for digest, _ in intents}
        lost = {each for each in arrived if _digest(each, load.run) not in digests}
        ok = {each.call.trace for each in load.succeeded}
        lost |= ok - {trace for _, trace in intents} | ok - {trace for _, trace in ended}
        found.lost = unresolved + unstarted + len(lost)
        spent, found.reserved = spent_and_reserved(self.cluster.valkey.url)
        found.drift = abs(spent - self._row(_CHARGED)[0])

    def _arrived(self, run: str) -> list[str]:
        message = (str(each.get("id", "")) for each in self.upstream.arrived())
        return [each for each in message if each.startswith(f"{run}.")]

    def _row(self, sql: str) -> list[int]:
        (row,) = self.cluster.eventual_rows(sql)
        return [int(value or 0) for value in row.values()]

    def _digests(self, event: str) -> list[tuple[str, str]]:
        """Return the argument digests and traces of all events with this name, read in pages."""
        what = "groupUniqArray((JSONExtractString(detail, 'arguments_digest'), trace_id)) AS found"
        (count,) = self._row(f"SELECT count() FROM events WHERE event = '{event}'")
        parts = count // AT_ONCE + 1
        return [
            (str(digest), str(trace))
            for part in range(parts)
            for row in self.cluster.eventual_rows(
                f"SELECT {what} FROM events WHERE event = '{event}'"
                f" AND cityHash64(id) % {parts} = {part}"
            )
            for digest, trace in row["found"]
        ]


def _digest(call: str, run: str) -> str:
    """Return the arguments digest in the intent of a received call."""
    arguments: dict[str, Any] = {"id": call}
    number = call.removeprefix(f"{run}.")
    if number.isdigit() and KINDS[int(number) % len(KINDS)] == "wait":
        arguments["seconds"] = 0.02
    return sha256(json.dumps(arguments, separators=(",", ":")).encode()).hexdigest()


async def redeliver_after(bus: Bus, seconds: float) -> None:
    """Set the redelivery delay of the consumers of audit and policy."""
    stream = bus.client.jetstream()
    for durable in ("audit", "policy"):
        config = (await stream.consumer_info(EVENTS, durable)).config
        config.ack_wait = seconds
        await stream.add_consumer(EVENTS, config)
