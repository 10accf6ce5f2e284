"""A server that is several: each call goes to one of its replicas, and none to those that fail."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from time import monotonic, time
from typing import Any, cast
from urllib.parse import urlsplit

from toolbus_common.concurrency import end
from toolbus_common.config import Server
from toolbus_common.config.servers.timeouts import timeouts_of
from toolbus_common.contracts import (
    FOLLOW,
    BreakerClosed,
    BreakerOpened,
    CallAdmitted,
    CatalogEntry,
    Handshake,
)
from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamFaultError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import REPLICA_EJECTED
from toolbus_common.secrets import Values
from toolbus_executor.mcp_messages.client_capabilities import takes_tasks
from toolbus_executor.mcp_messages.task_formats import RESULT
from toolbus_executor.resilience.failure_log import is_failure, why
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.server_events import about_server
from toolbus_executor.transport.dialer_factory import Ways
from toolbus_executor.upstreams.base import Described, News, Upstream, asks, separates
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.factory import reached
from toolbus_executor.upstreams.listing import TOOLS
from toolbus_executor.upstreams.protocol_families import reached_in_families
from toolbus_executor.upstreams.replicas.listing_comparison import (
    KINDS,
    Found,
    compare,
    differs,
    found_in_time,
    most,
)
from toolbus_executor.upstreams.replicas.load_balancing import home_of, next_in_turn, uncrowded
from toolbus_executor.upstreams.replicas.outlier_ejection import Place, may_go
from toolbus_executor.upstreams.replicas.replica import Replica
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0  # for the other replicas, once the first is connected
LIST_SECONDS = 5.0
PROMPTS = "prompts/list"
ALL = 0.9  # of the time a call has: who took that much did not answer
MOST_HOMES = 20_000
MOST_REMEMBERED = 1024  # calls that failed at a replica, and may be tried at another


class Replicated:
    """One server of several replicas, which differ in nothing but their address."""

    def __init__(
        self,
        name: str,
        declared: Server,
        news: News,
        events: EventPublisher,
        ways: Ways,
        found: Values,
        spills: Spills | None = None,
    ) -> None:
        self.name = name
        self.news = news
        self.left_out: dict[str, str] = {}
        self.watched: frozenset[str] = frozenset()
        self.followed: frozenset[str] = frozenset()
        self._events = events
        self._declared = declared
        self._described: Described | None = None
        self._failed_at: OrderedDict[str, list[Replica]] = OrderedDict()
        self.separation: Separation | None = None  # set before anything is connected
        self.authorize: Callable[..., Upstream] | None = None  # where they want tokens
        self._homes: OrderedDict[str, Replica] = OrderedDict()  # where owners have sessions
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._replicas: list[Replica] = []
        for label, each in zip(labels(declared), declared.replicas, strict=True):
            alone = declared.model_copy(update={"url": each.url, "replicas": ()})
            own = ways.to_replicas_of(declared)
            make = partial(reached, ways=own, found=found, spills=spills)
            reach = partial(self._reached, declared=alone, make=make, place=each.url)
            REPLICA_EJECTED.labels(name, label).set(0)
            self._replicas.append(Replica(label, each.weight, reach, self, declared.probe))

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return self._described is not None and self._described.family != "modern"

    def asks_in(self, call: CallAdmitted) -> bool:
        """Whether the server may ask back in the middle of this call, wherever it is made."""
        connected = [each.upstream for each in self._replicas if each.upstream is not None]
        return any(asks(each, call) for each in connected) if connected else self.asks

    def separates_in(self, call: CallAdmitted) -> bool:
        """Whether this call belongs to a session of its owner's."""
        return any(separates(each.upstream, call) for each in self._replicas)

    @property
    def handshake(self) -> Handshake | None:
        """What it says of itself in the handshake, where it speaks both families."""
        told = (getattr(each.upstream, "handshake", None) for each in self._replicas)
        return next((each for each in told if each is not None), None)

    def spared(self, _call: CallAdmitted) -> bool:
        """Whether a failed call says nothing of the whole server: another replica is well."""
        return self.well

    @property
    def well(self) -> bool:
        """Whether there is a replica in place that did not fail last."""
        return any(each.in_place and not each.standing.failures for each in self._replicas)

    async def open(self) -> Described:
        """Connect to all; it is there when one of them is."""
        trying = [asyncio.create_task(each.tried.wait()) for each in self._replicas]
        try:
            while self._described is None and not all(each.done() for each in trying):
                left = [each for each in trying if not each.done()]
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            if self._described is None:
                raise UpstreamDeadError(self._none_left(), sent=False)
            await asyncio.wait(trying, timeout=GRACE_SECONDS)
            return self._described
        finally:
            await end(*trying)

    async def list_page(self, method: str, _cursor: str | None) -> dict[str, Any]:
        """All of a list as one page: as most of the replicas have it that can be asked."""
        kind = KINDS[method]
        asked = self._connected()
        listed = await found_in_time([each for _, each in asked], kind, LIST_SECONDS)
        told: list[tuple[Replica, Found]] = []
        for (replica, _), each in zip(asked, listed, strict=True):
            if isinstance(each, Found):
                told.append((replica, each))
            _note(replica, method, each)
        if not told:
            raise _first_error(listed)
        chosen = most(told)
        if method == PROMPTS:
            for replica, _ in asked:
                compare(replica, "prompts", replica.prompts, chosen.digests)
        return chosen.page(kind)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of what was listed, here or elsewhere: who differs in a tool does not do it."""
        told = {each.name: each.digest for each in tools}
        for replica in self._replicas:
            if replica.tools is None or replica.upstream is None:
                continue
            compare(replica, "tools", replica.tools, told)
            replica.compared = True
            replica.upstream.learn(tools)
        stale = [name for name in told if all(differs(each, name) for each in self._compared())]
        if stale and self._compared():
            self.news.changed()  # another executor saw what is new: see it here too

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask the replica whose turn it is, or the one this caller stays with."""
        replica = self._chosen(call)
        upstream, began = replica.upstream, monotonic()
        assert upstream is not None  # noqa: S101 - who is compared is connected
        patience = min(timeouts_of(self._declared, call.tool).idle, call.deadline - time())
        replica.asked += 1
        replica.under_way += 1
        try:
            raw = await upstream.call(call, seconds, caller)
        except TimeoutError:
            if call.method != RESULT:  # to be waited for is what it is for
                replica.failed(_unanswered(monotonic() - began))
            raise
        except asyncio.CancelledError:
            # A server that may ask is waited for in rounds, whose end is a cancellation here.
            if (
                monotonic() - began >= ALL * patience
                and not caller.was_asked
                and caller.left() <= 0
                and call.method != RESULT
            ):
                replica.failed(_unanswered(patience))
            raise
        except ToolbusError as error:
            self._answered(replica, call, error)
            raise
        else:
            replica.succeeded()
            return raw
        finally:
            replica.under_way -= 1

    async def hear(self, call: CallAdmitted, seconds: float) -> bytes:
        """Have the replica tell of a resource or a task where the call's owner has its session."""
        return await cast("Separated", self._chosen(call).upstream).hear(call, seconds)

    async def probe(self) -> None:
        """Whether any replica is well, as far as is known: each has probes of its own."""
        if not self.well:
            raise UpstreamDeadError(self._none_left())

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources, from whichever replica tells."""
        await self._all(lambda upstream: upstream.watch(uris))
        self.watched = uris

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks, from whichever replica has them."""
        await self._all(lambda upstream: upstream.follow(tasks))
        self.followed = tasks

    async def wait_lost(self) -> str:
        """Wait until no replica is connected."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Leave all of them."""
        await end(*(each.task for each in self._replicas))

    def told(self) -> list[dict[str, Any]]:
        """A row per replica, for `toolbus status`."""
        return [each.told() for each in self._replicas]

    # -- what its replicas ask and tell ------------------------------------------------------

    def join(self, described: Described) -> None:
        """Take a replica in. Raises `UpstreamFaultError` for one of another family."""
        if self._described is None:
            self._described = described
        elif self._described.ours != described.ours:
            self._end("Somebody has connected or disconnected, so all replicas are met again.")
        elif self._described.family != described.family:
            raise UpstreamFaultError(
                f"This replica speaks the {described.family} protocol family, the others the "
                f"{self._described.family} one; replicas must be alike."
            )

    def may_eject(self, replica: Replica) -> bool:
        """Whether at most half are ejected with this one, and another is in place."""
        out = sum(each.standing.place is not Place.IN for each in self._replicas)
        others = sum(each.in_place for each in self._replicas if each is not replica)
        return may_go(out, len(self._replicas), others)

    def moved(self, replica: Replica, reason: str) -> None:
        """Say that a replica was ejected, or is back in its place."""
        ejected = replica.standing.place is Place.EJECTED
        REPLICA_EJECTED.labels(self.name, replica.label).set(int(ejected))
        about: dict[str, Any] = {"server": self.name, "replica": replica.label}
        if ejected:
            log.warning("replica.ejected", extra=about | {"reason": reason})
            told = about_server(self.name, "ejected") | {"replica": replica.label}
            self._events.publish(BreakerOpened(**told, reason=reason))
        else:
            log.info("replica.returned", extra=about)
            told = about_server(self.name, "returned") | {"replica": replica.label}
            self._events.publish(BreakerClosed(**told))

    def lost(self) -> None:
        """A connection ended; when it was the last, so did the server."""
        if self._described is None or any(each.upstream is not None for each in self._replicas):
            return
        self._end(self._none_left())

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _reached(
        self, news: News, declared: Server, make: Callable[[Server, News], Upstream], place: str
    ) -> Upstream:
        """A connection to one replica, at which each owner has its session where it has one."""
        if self.authorize is not None:
            return self.authorize(declared, news, make, place)
        return reached_in_families(declared, news, make, self.separation, place)

    # -- which one ---------------------------------------------------------------------------

    def _chosen(self, call: CallAdmitted) -> Replica:
        """Who takes a call. Raises `UpstreamDeadError` where nobody can.

        If nobody is in place, an ejected one is better than none: the server's breaker decides.
        """
        can = [each for each in self._replicas if each.can(call)]
        able = [each for each in can if each.takes(call)] or can
        if not able:
            raise UpstreamDeadError(self._none_left(), sent=False)
        failed = self._failed_at.pop(call.call_id, None) if self._failed_at else None
        if failed:
            self._failed_at[call.call_id] = failed
        if self._stays(call):
            return self._home(call, able, failed or [])
        able = [each for each in able if each not in (failed or ())] or able
        return able[0] if len(able) == 1 else next_in_turn(uncrowded(able))

    def _home(self, call: CallAdmitted, able: list[Replica], failed: list[Replica]) -> Replica:
        """Where the caller's session is while that one is able; a retry may go elsewhere."""
        owner = self.separation.ownership.of(call).id if self.separation else call.key
        home = self._homes.get(owner)
        if home not in able:
            home = self._homes[owner] = home_of(owner, able)
            if len(self._homes) > MOST_HOMES:
                self._homes.popitem(last=False)
        self._homes.move_to_end(owner)
        others = [each for each in able if each not in failed] if home in failed else []
        return home_of(owner, others) if others else home

    def _stays(self, call: CallAdmitted) -> bool:
        """Whether a replica may know something of this caller that the others do not."""
        return (
            self.asks_in(call)
            or bool(call.extra)
            or call.method.startswith("tasks/")
            or call.method == FOLLOW
            or takes_tasks(call.capabilities)
        )

    def _answered(self, replica: Replica, call: CallAdmitted, error: ToolbusError) -> None:
        """Take note of an error, and that a retry of the call had better go elsewhere."""
        if not is_failure(error):
            if error.data.get("sent", True):
                replica.succeeded()
            return
        replica.failed(error)
        if isinstance(error, UpstreamDeadError):
            self._failed_at.setdefault(call.call_id, []).append(replica)
            if len(self._failed_at) > MOST_REMEMBERED:
                self._failed_at.popitem(last=False)

    def _connected(self) -> list[tuple[Replica, Upstream]]:
        """Those that can be asked; the ejected ones only if there are no others."""
        found = [(each, each.upstream) for each in self._replicas if each.upstream is not None]
        placed = [pair for pair in found if pair[0].standing.place is not Place.EJECTED]
        return placed or found

    def _compared(self) -> list[Replica]:
        return [each for each in self._replicas if each.compared]

    async def _all(self, ask: Callable[[Upstream], Awaitable[None]]) -> None:
        """Ask all that can be asked. Raises the first error if it went well with none."""
        asked = [ask(upstream) for _, upstream in self._connected()]
        told = await asyncio.gather(*asked, return_exceptions=True)
        if told and all(isinstance(each, BaseException) for each in told):
            raise _first_error(told)

    def _none_left(self) -> str:
        """For callers too, who need not know the addresses."""
        said = "; ".join(sorted({each.reason or each.state for each in self._replicas}))
        return f"The upstream has no replica that can be called ({said[:1000]}); retry shortly."


def told_of(upstream: Upstream | None) -> dict[str, Any]:
    """What `toolbus status` tells of the replicas of a server that has some."""
    return {"replicas": upstream.told()} if isinstance(upstream, Replicated) else {}


def labels(declared: Server) -> list[str]:
    """What each replica is called: its address without what may be secret in it."""
    found: list[str] = []
    for each in declared.replicas:
        parts = urlsplit(each.url)
        label = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        found.append(f"{label}#{len(found)}" if label in found else label)
    return found


def _note(replica: Replica, method: str, listed: Found | BaseException) -> None:
    """Keep what a replica lists. Without prompts it has none; without tools it is of no use."""
    if isinstance(listed, Found):
        if method == TOOLS.method:
            replica.tools = listed.digests
        elif method == PROMPTS:
            replica.prompts = listed.digests
    elif method == TOOLS.method:
        replica.cannot_list(why(listed) or "it did not answer in time")
    elif method == PROMPTS:
        replica.prompts = {}


def _first_error(told: Sequence[object]) -> BaseException:
    return next(each for each in told if isinstance(each, BaseException))


def _unanswered(seconds: float) -> UpstreamTimeoutError:
    return UpstreamTimeoutError(f"The upstream did not answer within {seconds:.3g} s.")
