"""Keeps one server connected, its tools published, and its calls served; and says what it finds."""

import asyncio
import logging
import random
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_common.concurrency import end, first_of
from toolbus_common.config import Server
from toolbus_common.contracts import (
    CallAdmitted,
    Listing,
    ServerConnected,
    ServerLost,
    ServerState,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import Values
from toolbus_common.service.service import Service
from toolbus_executor.calls.call_handler import Runner
from toolbus_executor.catalog.client_specific_lists import listed_for_all
from toolbus_executor.catalog.definition_pins import Pins
from toolbus_executor.catalog.list_faults import ListFaults
from toolbus_executor.catalog.publisher import Entry, Refused
from toolbus_executor.dependencies import Means
from toolbus_executor.resilience.failure_log import lost_by, why
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.server_events import about_server
from toolbus_executor.servers.lease import Lease
from toolbus_executor.servers.notification_publisher import Announcements
from toolbus_executor.servers.refresh_schedule import pause_of, renewed
from toolbus_executor.upstreams.base import Described, News, Upstream, leave
from toolbus_executor.upstreams.factory import kind_of, secrets_of
from toolbus_executor.upstreams.listing import repairs_of
from toolbus_executor.upstreams.mcp.attribution import Dropped
from toolbus_executor.upstreams.process.isolation_status import Held
from toolbus_executor.upstreams.sessions.idle_shutdown import described_in, still_true
from toolbus_executor.upstreams.sessions.separate_sessions import separation_of
from toolbus_executor.upstreams.subscriptions import Watched

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
SETTLE_SECONDS = 0.1  # list changes come in bursts
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
STEADY_SECONDS = 10.0  # a connection that held this long begins its pauses anew


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where keepers write."""

    catalogue: Bucket
    leases: Bucket
    pins: Bucket


class Keeper:
    """One declared server, from its declaration to its removal."""

    def __init__(
        self,
        name: str,
        declared: Server,
        service: Service,
        buckets: Buckets,
        pins: Pins,
        means: Means,
    ) -> None:
        self.name = name
        self.declared = declared
        self.watched = Watched(self._rewatch)
        self.followed = Watched(self._rewatch)
        self.separation = own = separation_of(name, declared, means.starts)
        self.runner = Runner(name, declared, service.events, self.watched, self.followed, own)
        self._spills = self.runner.spills = Spills(means.vault, declared.results)
        self.state = ServerState.CONNECTING
        self.described: Described | None = None
        self.fresh = False  # to be listed anew, though its declaration is as it was
        self.held = Held(name)
        self._faults = ListFaults(name, service.events)
        self._lost_at = 0.0
        self._said_lost = ""  # why, as long as it is lost
        self._service = service
        self._pins = buckets.pins
        self._means = means
        alone = declared.is_process and own is None
        self._lease = Lease(buckets.leases, name, service.events.producer) if alone else None
        self.entry = Entry(name, declared.definitions, buckets.catalogue, pins, service.events)
        self.entry.on_refused = self._refuse
        self._changed = asyncio.Event()
        self._hope = asyncio.Event()
        self._pause: float | None = None  # until its lists are old by its own word
        self._said = Announcements(name, service, self.watched)
        self._unattributed = Dropped(name)
        self._task = asyncio.create_task(self._keep())

    async def told(self) -> dict[str, Any]:
        """The server's row in `toolbus status`."""
        elsewhere = self._lease is not None and self._lease.elsewhere
        shown = (await self.entry.now() if elsewhere else None) or self._own()
        return {
            "name": self.name,
            "kind": kind_of(self.declared),
            "state": shown.state.value,
            "family": shown.family,
            "version": shown.version,
            "tools": len(shown.tools),
            "quarantined": len(shown.quarantined),
            "dropped": shown.dropped,
            "repaired": repairs_of(shown),
            "failed_lists": shown.failed,
            "lost_at": shown.lost_at,
            "owner": not elsewhere,
            **self.runner.told(),
            **self.held.told(),
            "dropped_messages": self._unattributed.counts,
            "sessions": self.separation.pool.told() if self.separation is not None else None,
            "last_failure": self.runner.guard.failures.last
            or ("" if elsewhere else self.runner.why_not),
        }

    def try_now(self) -> None:
        """Why it could not be reached may be over: try at once, not at the end of the pause."""
        self._hope.set()

    async def stop(self, *, removed: bool) -> None:
        """Leave the server; `removed` also takes it out of the catalogue."""
        self.runner.close()
        self.watched.close()
        self.followed.close()
        await end(self._task)
        if self.runner.placing is not None:
            await self.runner.placing.close()
        await self._spills.close()
        await self.entry.close(removed=removed)

    async def _keep(self) -> None:
        """Serve for as long as the server is declared, whatever happens meanwhile."""
        while True:
            try:
                await (self._serve() if self._lease is None else self._serve_alone(self._lease))
            except Exception:
                log.exception("server.failed_inside", extra={"server": self.name})
            await asyncio.sleep(FIRST_PAUSE)

    async def _serve_alone(self, lease: Lease) -> None:
        """Serve while no other executor does."""
        await lease.acquire()
        serving = asyncio.create_task(self._serve())
        holding = asyncio.create_task(lease.keep())
        try:
            await asyncio.wait((serving, holding), return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                log.warning("server.lease_lost", extra={"server": self.name})
        finally:
            holding.cancel()
            serving.cancel()
            await asyncio.gather(serving, holding, return_exceptions=True)
            await lease.release()

    async def _serve(self) -> None:
        """Connect, attend, and connect again, serving calls all the while."""
        await self._service.calls.serve(CallAdmitted, self.name, self.runner.run, "executor")
        pause = FIRST_PAUSE
        try:
            await self._sleep_on()
            while True:
                await self.runner.idling.until_wanted()
                began = asyncio.get_running_loop().time()
                self._hope.clear()
                reason = await self._connection()
                if self.runner.idling.asleep and not reason:
                    continue
                steady = asyncio.get_running_loop().time() - began > STEADY_SECONDS
                if steady or self.runner.idling.answered:
                    pause = FIRST_PAUSE
                await self._lost(reason)
                hopeful = await self._rest(pause * random.uniform(0.8, 1.2))  # noqa: S311
                pause = FIRST_PAUSE if hopeful else min(LONGEST_PAUSE, pause * 2)
        finally:
            self.runner.idling.settle()
            await self._service.calls.leave(CallAdmitted, self.name)

    async def _rest(self, seconds: float) -> bool:
        """Wait before the next try; whether something happened that gives it hope."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hope.wait(), seconds)
        return self._hope.is_set()

    def _turn(self) -> AbstractAsyncContextManager[None]:
        """A place among processes that start for the first time; one that died waits for nobody."""
        new = self.declared.is_process and self.described is None
        return self._means.starts if new else nullcontext()

    async def _sleep_on(self) -> None:
        """Sleep at first, if what is published was listed by the very server that is declared."""
        if self.fresh or not self.runner.idling.scales:
            return
        known = await self.entry.now()
        if known is None or not still_true(known, self.declared):
            return
        self.state, self.described = known.state, described_in(known)
        await self.runner.checks.learn(known.tools)
        self.entry.adopt(known)
        self.entry.weigh_anew()
        self.runner.idling.fall_asleep()

    async def _connection(self) -> str:
        """One connection from beginning to end; why it ended, or nothing if it sleeps now."""
        upstream: Upstream | None = None
        probing: asyncio.Task[None] | None = None
        found: Values = {}
        try:
            async with self._turn(), asyncio.timeout(CONNECT_SECONDS):
                means, own = self._means, (self._service.events, self._spills, self.separation)
                found = await means.found(self.declared)
                upstream = means.reached(self.name, self.declared, self._news(), found, *own)
                self.described = await upstream.open()
                listing = await self._listing(upstream)
                await self._watch(upstream)
                # First it can be called, then it is shown.
                self.runner.upstream, self.runner.why_not = upstream, ""
                self.runner.idling.settle()
                await self._publish(listing)
            self._connected()
            probing = asyncio.create_task(self.runner.health.watch(upstream))
            return await self._attend(upstream, found)
        except ToolbusError as error:
            return lost_by(self.name, error, lambda: secrets_of(self.declared, found))
        except TimeoutError:
            return f"It did not connect and list its tools within {CONNECT_SECONDS:g} s."
        except Exception:
            log.exception("server.failed_inside", extra={"server": self.name})
            return "It answered in a way that could not be understood."
        finally:
            self.runner.upstream = None
            if probing is not None:
                await end(probing)
            if upstream is not None:
                await leave(upstream)
                self.held.ended(upstream)

    def _news(self) -> News:
        """Who hears what a connection says that belongs to no call."""
        asked = self.separation.ownership.note_question if self.separation is not None else None
        said = self._said
        return News(
            self._changed.set, said.hear, self._relist, self._unattributed, said.tell, asked
        )

    async def _relist(self, call: CallAdmitted) -> None:
        """List anew at once, for a call whose tool was listed otherwise."""
        if self.runner.upstream is not None:
            await self._list(self.runner.upstream)
            self.runner.refuse_held(call)

    def _rewatch(self) -> None:
        """Nobody asked for some of what is watched again."""
        if self.runner.upstream is not None:
            self._service.spawn(self._watch(self.runner.upstream))

    async def _watch(self, upstream: Upstream) -> None:
        """Hear of what somebody still wants to hear of."""
        try:
            await upstream.watch(self.watched.names)
            await upstream.follow(self.followed.names)
        except (ToolbusError, TimeoutError) as error:
            log.info("server.not_watched", extra={"server": self.name, "reason": why(error)})

    async def _attend(self, upstream: Upstream, found: Values) -> str:
        """Publish every change of its lists, and list anew what grew old, until it is lost."""
        changed_secret = self._means.secrets.until_changed(found)
        lost = asyncio.ensure_future(first_of(upstream.wait_lost(), changed_secret))
        idle = asyncio.ensure_future(self.runner.idling.until_due())
        try:
            while not lost.done():
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait(
                    (lost, changed, idle), timeout=self._pause, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                if lost.done():
                    break
                if idle.done():
                    if self.runner.idling.falls_asleep():
                        return ""
                    idle = asyncio.ensure_future(self.runner.idling.until_due())
                    continue
                await (self._take_change if self._changed.is_set() else self._renew)(upstream)
            return lost.result()
        finally:
            lost.cancel()
            idle.cancel()

    async def _take_change(self, upstream: Upstream) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._list(upstream)
        await self._said.say_changed()

    async def _renew(self, upstream: Upstream) -> None:
        """List anew, or take what another replica has listed meanwhile.

        Who does not answer now keeps its connection: what it listed is shown as old until it does.
        """
        try:
            known = await self.entry.now()
            if known is not None and renewed(known):
                held = (each for each in known.quarantined if each.kind == "tools")
                await self.runner.checks.learn((*known.tools, *held))
                await self.runner.checks.learn(known.tools)
                self._take_note(upstream, known)
                self.entry.adopt(known)
                return
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._list(upstream)
            await self._said.say_changed()
        except (ToolbusError, TimeoutError) as error:
            reason = why(error) or f"it did not list its tools within {CONNECT_SECONDS:g} s"
            log.warning("server.not_renewed", extra={"server": self.name, "reason": reason})
            failed = {"tools/list": reason}
            self._faults.note(self._own().model_copy(update={"failed": failed}))

    async def _list(self, upstream: Upstream) -> None:
        await self._publish(await self._listing(upstream))

    async def _listing(self, upstream: Upstream) -> Listing:
        """What the server offers now, taken note of: nothing held back can be called from here."""
        self._changed.clear()
        assert self.described is not None  # noqa: S101 - set by whoever connected
        listing = await listed_for_all(self.described, upstream, self.entry, self.declared)
        await self.runner.checks.learn(listing.tools)
        self._take_note(upstream, listing)
        self.entry.ours = self.described.ours
        return await self.entry.take(listing, self._pins)

    def _take_note(self, upstream: Upstream, listing: Listing) -> None:
        self._faults.note(listing)
        upstream.learn(listing.tools)
        if self.runner.cache is not None:
            self.runner.cache.learn(listing.tools)
        self._pause = pause_of(listing)

    async def _publish(self, listing: Listing) -> None:
        self.state = listing.state
        await self.entry.publish(listing)

    def _refuse(self, names: Refused) -> None:
        self.runner.refused = names

    def _own(self) -> Listing:
        """What this executor knows of the server, in its present state."""
        described = self.described or Described("", "")
        told = self.entry.listed or Listing(server=self.name, state=self.state)
        faults = {"dropped": self._faults.dropped, "failed": self._faults.failed}
        mine = {**faults, "lost_at": self._lost_at}
        seen = {"state": self.state, "family": described.family, "version": described.version}
        return told.model_copy(update=mine | seen)

    def _connected(self) -> None:
        version = self.described.version if self.described else ""
        if self.declared.is_process:
            self.runner.guard.succeeded()  # what the process before it did says nothing of it
            self.held.tell(self.runner.upstream)
        self._lost_at, self._said_lost = 0.0, ""
        tools = len(self.entry.listed.tools) if self.entry.listed else 0
        log.info("server.connected", extra={"server": self.name, "tools": tools})
        self._service.events.publish(
            ServerConnected(**about_server(self.name, "connected"), tools=tools, version=version)
        )

    async def _lost(self, reason: str) -> None:
        """Say so unless it was said, and keep its last known tools listed as stale."""
        self.runner.why_not = reason
        self.runner.idling.settle()
        self._lost_at = self._lost_at or time()
        if reason != self._said_lost:
            self._said_lost = reason
            log.warning("server.lost", extra={"server": self.name, "reason": reason})
            self._service.events.publish(
                ServerLost(**about_server(self.name, "lost"), reason=reason)
            )
        with suppress(Exception):  # the bus may be away: the next connection publishes
            known = await self.entry.now()
            stale = known is not None and (known.tools or known.quarantined)
            state = ServerState.STALE if stale else ServerState.FAILED
            listing = known or Listing(server=self.name, state=state)
            self._lost_at = listing.lost_at or self._lost_at  # it may be longer than we know
            told = {"state": state, "reason": reason, "lost_at": self._lost_at}
            await self._publish(listing.model_copy(update=told))
