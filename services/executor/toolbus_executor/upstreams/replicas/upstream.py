"""Upstream for a server with several replicas. Failing replicas receive no calls."""

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
    UpstreamInvalidError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import REPLICA_EJECTED
from toolbus_common.secrets import Values
from toolbus_executor.mcp_messages.client_capabilities import takes_tasks
from toolbus_executor.mcp_messages.task_formats import RESULT
from toolbus_executor.resilience.failure_log import is_failure
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.server_events import about_server
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.base import (
    Described,
    Upstream,
    UpstreamCallbacks,
    sends_requests,
    separates,
)
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.factory import reached
from toolbus_executor.upstreams.protocol_families import create_in_families
from toolbus_executor.upstreams.replicas.listing_comparison import (
    KINDS,
    PROMPTS,
    Found,
    compare,
    differs,
    found_in_time,
    majority,
    note_list,
)
from toolbus_executor.upstreams.replicas.load_balancing import home_of, next_in_turn, uncrowded
from toolbus_executor.upstreams.replicas.outlier_ejection import Place, may_go
from toolbus_executor.upstreams.replicas.replica import Replica
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0  # time for further replicas to connect after the first replica
LIST_SECONDS = 5.0
ALL = 0.9  # share of a call's time after which its cancellation counts as a timeout
MAX_ASSIGNMENTS = 20_000
MAX_REMEMBERED = 1024  # failed calls that another replica can retry


class ReplicatedUpstream:
    """A server with several replicas, which differ only in their address."""

    def __init__(
        self,
        name: str,
        declared: Server,
        news: UpstreamCallbacks,
        events: EventPublisher,
        ways: DialerFactory,
        found: Values,
        spills: SpillRegistry | None = None,
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
        self.separation: Separation | None = None  # set before connecting
        self.authorize: Callable[..., Upstream] | None = None  # set if the replicas require tokens
        # By owner: the replica with the owner's session.
        self._homes: OrderedDict[str, Replica] = OrderedDict()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._replicas: list[Replica] = []
        for label, each in zip(labels(declared), declared.replicas, strict=True):
            alone = declared.model_copy(update={"url": each.url, "replicas": ()})
            own = ways.for_replicas_of(declared)
            make = partial(reached, ways=own, found=found, spills=spills)
            reach = partial(self._reached, declared=alone, make=make, place=each.url)
            REPLICA_EJECTED.labels(name, label).set(0)
            self._replicas.append(Replica(label, each.weight, reach, self, declared.probe))

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._described is not None and self._described.family != "modern"

    def sends_requests_in(self, call: CallAdmitted) -> bool:
        """Return whether any replica may send requests to the client during this call."""
        connected = [each.upstream for each in self._replicas if each.upstream is not None]
        return (
            any(sends_requests(each, call) for each in connected)
            if connected
            else self.sends_requests
        )

    def separates_in(self, call: CallAdmitted) -> bool:
        """Return whether this call needs a session of its owner."""
        return any(separates(each.upstream, call) for each in self._replicas)

    @property
    def handshake(self) -> Handshake | None:
        """The description from the handshake, if the server supports both families."""
        handshakes = (getattr(each.upstream, "handshake", None) for each in self._replicas)
        return next((each for each in handshakes if each is not None), None)

    def spared(self, _call: CallAdmitted) -> bool:
        """Return whether a failed call should not count as a failure of the server."""
        return self.well

    @property
    def well(self) -> bool:
        """Whether there is an active replica whose latest call did not fail."""
        return any(each.in_place and not each.standing.failures for each in self._replicas)

    async def open(self) -> Described:
        """Connect the replicas, and return when one of them is connected."""
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
        """Return a complete list as one page: the majority's list."""
        kind = KINDS[method]
        connected = self._connected()
        listed = await found_in_time([each for _, each in connected], kind, LIST_SECONDS)
        lists: list[tuple[Replica, Found]] = []
        for (replica, _), each in zip(connected, listed, strict=True):
            if isinstance(each, Found):
                lists.append((replica, each))
            note_list(replica, method, each)
        if not lists:
            raise _first_error(listed)
        chosen = majority(lists)
        if method == PROMPTS:
            for replica, _ in connected:
                compare(replica, "prompts", replica.prompts, chosen.digests)
        return chosen.page(kind)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the listed tools. A replica that differs receives no calls of a tool."""
        listed = {each.name: each.digest for each in tools}
        for replica in self._replicas:
            if replica.tools is None or replica.upstream is None:
                continue
            compare(replica, "tools", replica.tools, listed)
            replica.compared = True
            replica.upstream.learn(tools)
        stale = [name for name in listed if all(differs(each, name) for each in self._compared())]
        if stale and self._compared():
            self.news.on_lists_changed()  # another executor listed a newer definition

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call to the next replica, or to the caller's fixed replica."""
        replica = self._chosen(call)
        upstream, began = replica.upstream, monotonic()
        assert upstream is not None  # noqa: S101 - a compared replica is connected
        patience = min(timeouts_of(self._declared, call.tool).idle, call.deadline - time())
        replica.call_count += 1
        replica.in_progress += 1
        try:
            raw = await upstream.call(call, seconds, caller)
        except TimeoutError:
            if call.method != RESULT:  # the server may delay this response
                replica.failed(_unanswered(monotonic() - began))
            raise
        except asyncio.CancelledError:
            # Calls with input requests are awaited several times; these waits end by cancellation.
            if (
                monotonic() - began >= ALL * patience
                and not caller.received_request
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
            replica.in_progress -= 1

    async def subscribe(self, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe the owner of a call to a resource or a task, at its replica."""
        return await cast("Separated", self._chosen(call).upstream).subscribe(call, seconds)

    async def probe(self) -> None:
        """Raise `UpstreamDeadError` if no replica is healthy. Replicas are probed separately."""
        if not self.well:
            raise UpstreamDeadError(self._none_left())

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources, at all replicas that support it."""
        await self._all(lambda upstream: upstream.watch(uris))
        self.watched = uris

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks, at all replicas that support it."""
        await self._all(lambda upstream: upstream.follow(tasks))
        self.followed = tasks

    async def wait_lost(self) -> str:
        """Wait until no replica is connected, and return the reason."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Close the connections to all replicas."""
        await end(*(each.task for each in self._replicas))

    def status(self) -> list[dict[str, Any]]:
        """Return the rows of the replicas in `toolbus status`."""
        return [each.status() for each in self._replicas]

    # -- called by the replicas --------------------------------------------------------------

    def join(self, described: Described) -> None:
        """Accept a replica. Raises `UpstreamInvalidError` for another protocol family."""
        if self._described is None:
            self._described = described
        elif self._described.ours != described.ours:
            self._end("A user has connected or disconnected, so all replicas are reconnected.")
        elif self._described.family != described.family:
            raise UpstreamInvalidError(
                f"This replica uses the {described.family} protocol family, the others the "
                f"{self._described.family} one; deploy the same version on all replicas."
            )

    def may_eject(self, replica: Replica) -> bool:
        """Return whether this replica may be ejected."""
        out = sum(each.standing.place is not Place.IN for each in self._replicas)
        others = sum(each.in_place for each in self._replicas if each is not replica)
        return may_go(out, len(self._replicas), others)

    def moved(self, replica: Replica, reason: str) -> None:
        """Report that a replica was ejected, or that it receives calls again."""
        ejected = replica.standing.place is Place.EJECTED
        REPLICA_EJECTED.labels(self.name, replica.label).set(int(ejected))
        about: dict[str, Any] = {"server": self.name, "replica": replica.label}
        if ejected:
            log.warning("replica.ejected", extra=about | {"reason": reason})
            event = about_server(self.name, "ejected") | {"replica": replica.label}
            self._events.publish(BreakerOpened(**event, reason=reason))
        else:
            log.info("replica.returned", extra=about)
            event = about_server(self.name, "returned") | {"replica": replica.label}
            self._events.publish(BreakerClosed(**event))

    def lost(self) -> None:
        """Report the end of a connection. Without any connection, the server is lost."""
        if self._described is None or any(each.upstream is not None for each in self._replicas):
            return
        self._end(self._none_left())

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _reached(
        self,
        news: UpstreamCallbacks,
        declared: Server,
        make: Callable[[Server, UpstreamCallbacks], Upstream],
        place: str,
    ) -> Upstream:
        """Return a connection to one replica, which is not opened yet."""
        if self.authorize is not None:
            return self.authorize(declared, news, make, place)
        return create_in_families(declared, news, make, self.separation, place)

    # -- choosing a replica --------------------------------------------------------------------

    def _chosen(self, call: CallAdmitted) -> Replica:
        """Return the replica for a call, at worst an ejected one. Raises `UpstreamDeadError`."""
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
        """Return the replica with the caller's session. A retry can use another one."""
        owner = self.separation.ownership.of(call).id if self.separation else call.key
        home = self._homes.get(owner)
        if home not in able:
            home = self._homes[owner] = home_of(owner, able)
            if len(self._homes) > MAX_ASSIGNMENTS:
                self._homes.popitem(last=False)
        self._homes.move_to_end(owner)
        others = [each for each in able if each not in failed] if home in failed else []
        return home_of(owner, others) if others else home

    def _stays(self, call: CallAdmitted) -> bool:
        """Return whether a call needs the caller's fixed replica and its state."""
        return (
            self.sends_requests_in(call)
            or bool(call.extra)
            or call.method.startswith("tasks/")
            or call.method == FOLLOW
            or takes_tasks(call.capabilities)
        )

    def _answered(self, replica: Replica, call: CallAdmitted, error: ToolbusError) -> None:
        """Record the error of a call. After a failure, a retry uses another replica."""
        if not is_failure(error):
            if error.data.get("sent", True):
                replica.succeeded()
            return
        replica.failed(error)
        if isinstance(error, UpstreamDeadError):
            self._failed_at.setdefault(call.call_id, []).append(replica)
            if len(self._failed_at) > MAX_REMEMBERED:
                self._failed_at.popitem(last=False)

    def _connected(self) -> list[tuple[Replica, Upstream]]:
        """Return the connected replicas. Ejected replicas are returned only as the last choice."""
        found = [(each, each.upstream) for each in self._replicas if each.upstream is not None]
        placed = [pair for pair in found if pair[0].standing.place is not Place.EJECTED]
        return placed or found

    def _compared(self) -> list[Replica]:
        return [each for each in self._replicas if each.compared]

    async def _all(self, request: Callable[[Upstream], Awaitable[None]]) -> None:
        """Send a request to all connected replicas. Raises the first error if all fail."""
        requests = [request(upstream) for _, upstream in self._connected()]
        results = await asyncio.gather(*requests, return_exceptions=True)
        if results and all(isinstance(each, BaseException) for each in results):
            raise _first_error(results)

    def _none_left(self) -> str:
        """Return the reasons why no replica is active, without addresses."""
        reasons = "; ".join(sorted({each.reason or each.state for each in self._replicas}))
        return f"The upstream has no replica that can be called ({reasons[:1000]}); retry shortly."


def replica_status(upstream: Upstream | None) -> dict[str, Any]:
    """Return the replicas of a server for `toolbus status`; empty if it has none."""
    return {"replicas": upstream.status()} if isinstance(upstream, ReplicatedUpstream) else {}


def labels(declared: Server) -> list[str]:
    """Return a unique label for each replica: its URL without query and user information."""
    found: list[str] = []
    for each in declared.replicas:
        parts = urlsplit(each.url)
        label = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        found.append(f"{label}#{len(found)}" if label in found else label)
    return found


def _first_error(results: Sequence[object]) -> BaseException:
    return next(each for each in results if isinstance(each, BaseException))


def _unanswered(seconds: float) -> UpstreamTimeoutError:
    return UpstreamTimeoutError(
        f"The upstream did not respond within {seconds:.3g} s; check the server."
    )
