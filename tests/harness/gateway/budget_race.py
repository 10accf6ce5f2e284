"""Race of many clients for one budget on four levels, while processes are killed."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import redis

from harness.clients.bus_operator import key
from harness.engines.valkey_server import ValkeyServer
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.access.config_snapshot import key_digest_of
from toolbus_common.config import (
    Budget,
    Configuration,
    Customer,
    Period,
    Price,
    Server,
    Team,
    User,
)
from toolbus_common.contracts import CallRequested, ProtocolFamily
from toolbus_common.errors import BudgetExceededError, ToolbusError
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

# settled charges are lower than the reservations
PRICE = Price(call=0.001, kilobyte=0.001, maximum=0.002)
CALL_SECONDS = 4.0
ENOUGH_REFUSALS = 8  # consecutive denials of one client after which all reservations are settled
PAUSE = 0.3
WAIT_SECONDS = 180.0
KEYS = {
    "one": ("red", "ann"), "two": ("red", "bob"), "three": ("blue", "ann"), "four": ("blue", "bob"),
}  # fmt: skip


class LauncherValkey(ValkeyServer):
    """Valkey with the durability of the launcher: writes are on disk within a second."""

    def command(self) -> list[str]:
        """Return the command line with the flush interval of the launcher."""
        return [("everysec" if word == "always" else word) for word in super().command()]


@dataclass
class Figures:
    """The result of a race. Overshoot, drift and leaks are in micro-dollars, and must be 0."""

    clients: int
    reservations: int = 0
    refused: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    limit: int = 0
    spent: int = 0
    overshoot: int = 0
    drift: int = 0
    leaked: int = 0
    unused: int = 0

    @property
    def clean(self) -> bool:
        """Whether all invariants hold."""
        return self.overshoot == self.drift == self.leaked == 0

    def report(self) -> dict[str, Any]:
        """Return the figures for a results file."""
        return {**asdict(self), "per_second": round(self.reservations / self.seconds, 1)}


class Race:
    """Separate services: two policies, an executor, an audit. The clients act as ingress."""

    def __init__(self, directory: Path, reservations: int, clients: int = 64) -> None:
        self._upstream = Upstream(directory / "upstream")
        self._cluster = Cluster(
            directory, TOOLBUS_CALL_TIMEOUT=str(CALL_SECONDS), TOOLBUS_OUTCOME_GRACE="1",
            TOOLBUS_REDIS_TIMEOUT="3",
        )  # fmt: skip
        self._cluster.valkey = LauncherValkey(directory / "valkey")
        self._charge = 0
        self._wanted = reservations
        self.figures = Figures(clients)
        self._codes: Counter[str] = Counter()
        self._kills: Counter[str] = Counter()
        self._random = random.Random(7)

    def run(self, *, every: tuple[float, float]) -> Figures:
        """Start all processes, race until the budget is spent, and return the figures."""
        self._upstream.start()
        try:
            self._cluster.start(self._configuration(1.0), replicas=2)
            asyncio.run(self._race(every))
        finally:
            self._cluster.stop()
            self._upstream.kill()
        return self.figures

    def _configuration(self, usd: float) -> Configuration:
        def above(share: float) -> Budget:
            return Budget(usd=round(usd * share, 6), per=Period.MONTH)

        return Configuration(
            servers={"echo": Server(url=self._upstream.url)},
            customers={"acme": Customer(budget=above(1.0))},
            teams={name: Team(customer="acme", budget=above(0.7)) for name in ("red", "blue")},
            users={name: User(customer="acme", budget=above(0.7)) for name in ("ann", "bob")},
            keys={
                name: key(_secret(name), team=team, user=user, budget=above(0.4))
                for name, (team, user) in KEYS.items()
            },
            prices={"echo__*": PRICE},
        )

    async def _race(self, every: tuple[float, float]) -> None:
        settings = Settings(state_dir=self._cluster.state_dir, nats_url=self._cluster.nats.url)
        async with AsyncExitStack() as stack:
            # The cluster's ingress has no callers; these clients use its bus user.
            service = await stack.enter_async_context(Service("ingress", settings).running())
            await self._set_limit(service)
            began = time.monotonic()
            killer = asyncio.create_task(self._kill(every))
            names = [list(KEYS)[n % len(KEYS)] for n in range(self.figures.clients)]
            try:
                await asyncio.gather(*(self._client(service, name) for name in names))
            finally:
                killer.cancel()
                await asyncio.gather(killer, return_exceptions=True)
            self.figures.seconds = round(time.monotonic() - began, 1)
        await self._look()

    async def _set_limit(self, service: Service) -> None:
        """Set the budget for the wanted number of calls. A first call shows the price."""
        give_up = time.monotonic() + WAIT_SECONDS
        while await self._call(service, "one") is not None:
            assert time.monotonic() < give_up, self._codes
            await asyncio.sleep(0.1)
        rows = await asyncio.to_thread(
            self._cluster.eventual_rows, "SELECT charge FROM events WHERE event = 'call.completed'"
        )
        self._charge = int(rows[0]["charge"])
        self.figures.limit = self._charge * self._wanted
        declared = self._configuration(self.figures.limit / 1e6)
        await asyncio.to_thread(self._cluster.declare, declared)
        await asyncio.sleep(1)
        self._codes.clear()

    async def _client(self, service: Service, name: str) -> None:
        """Make calls until the budget is spent."""
        refusals = 0
        while refusals < ENOUGH_REFUSALS:
            error = await self._call(service, name)
            if error is None:
                refusals = 0
            elif isinstance(error, BudgetExceededError):
                refusals += 1
                await asyncio.sleep(PAUSE)
            else:
                await asyncio.sleep(0.02)

    async def _call(self, service: Service, name: str) -> ToolbusError | None:
        call_id = service.calls.new_call_id()
        call = CallRequested(
            call_id=call_id, reply_to=service.calls.address(call_id), server="echo", tool="say",
            key_digest=key_digest_of(_secret(name)), family=ProtocolFamily.MODERN,
            deadline=time.time() + CALL_SECONDS,
            traceparent=f"00-{random.getrandbits(128):032x}-{1:016x}-01", arguments=b'{"text":"x"}',
        )  # fmt: skip
        try:
            await service.calls.request(call)
        except ToolbusError as error:
            self._codes[error.code] += 1
            return error
        self._codes["ok"] += 1
        return None

    async def _kill(self, every: tuple[float, float]) -> None:
        """Kill policy and Valkey alternately until the race is over."""
        while True:
            await asyncio.sleep(self._random.uniform(*every))
            kill = self._random.choice((self._kill_policy, self._kill_valkey))
            await asyncio.to_thread(kill)

    def _kill_policy(self) -> None:
        replicas = self._cluster.processes["policy"]
        replicas.pop(self._random.randrange(len(replicas))).kill()
        self._kills["policy"] += 1
        self._cluster.run("policy").wait_ready()

    def _kill_valkey(self) -> None:
        self._cluster.valkey.kill()
        self._kills["valkey"] += 1
        self._cluster.valkey.start()

    # -- result ------------------------------------------------------------------------------

    async def _look(self) -> None:
        give_up = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < give_up:
            self._account(await asyncio.to_thread(self._by_the_events))
            if self.figures.leaked == 0 and self.figures.drift == 0:
                return
            await asyncio.sleep(1)

    def _account(self, charged: dict[str, int]) -> None:
        found, levels = self.figures, self._levels()
        found.refused = self._codes.pop("budget_exceeded", found.refused)
        found.kills = dict(self._kills)
        found.failed = {code: n for code, n in self._codes.items() if code != "ok"}
        found.spent = levels["customer:acme"]["spent"]
        found.unused = found.limit - found.spent
        found.leaked = sum(level["reserved"] for level in levels.values())
        limits = self._limits()
        found.overshoot = sum(max(0, levels[each]["spent"] - limits[each]) for each in levels)
        found.drift = sum(
            abs(level["spent"] - charged.get(each, 0)) for each, level in levels.items()
        )

    def _limits(self) -> dict[str, int]:
        shares = {"customer": 1.0, "team": 0.7, "user": 0.7, "key": 0.4}
        return {
            each: round(round(self.figures.limit / 1e6 * shares[each.split(":")[0]], 6) * 1e6)
            for each in self._levels()
        }

    def _levels(self) -> dict[str, dict[str, int]]:
        """Return the counters of all levels from Valkey."""
        with redis.Redis.from_url(self._cluster.valkey.url, decode_responses=True) as client:
            epoch = client.hget(customer_key("acme", BOOK), "epoch")
            found = {}
            for name in client.scan_iter(f"{{acme}}:{epoch!s}:budget:*"):
                raw = client.hgetall(name)
                assert isinstance(raw, dict)
                kind, own = str(name).split(":")[3:5]
                found[f"{kind}:{own}"] = {field: int(value) for field, value in raw.items()}
        return found

    def _by_the_events(self) -> dict[str, int]:
        """Return the charges per level. Only the first outcome event of a call counts."""
        rows = self._cluster.rows(
            "SELECT key, team, user, sum(c) AS charged, count() AS n FROM ("
            " SELECT call_id, anyIf(key, intent) AS key, anyIf(team, intent) AS team,"
            " anyIf(user, intent) AS user, countIf(intent) AS intents,"
            " countIf(NOT intent AND NOT unknown) AS ends,"
            " if(ends > 0, argMinIf(charge, (stream_seq, line), NOT intent AND NOT unknown),"
            " maxIf(charge, unknown)) AS c FROM ("
            "  SELECT *, event = 'call.allowed' AS intent, endsWith(id, '.unknown') AS unknown"
            "  FROM events WHERE event IN ('call.allowed', 'call.completed', 'call.failed'))"
            " GROUP BY call_id) GROUP BY key, team, user"
        )
        charged: Counter[str] = Counter()
        for row in rows:
            for each in (f"key:{row['key']}", f"team:{row['team']}", f"user:{row['user']}"):
                charged[each] += int(row["charged"])
            charged["customer:acme"] += int(row["charged"])
        self.figures.reservations = sum(int(row["n"]) for row in rows)
        return dict(charged)


def _secret(name: str) -> str:
    return f"tbk_{name}_of-a-race-for-one-budget"
