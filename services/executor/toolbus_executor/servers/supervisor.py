"""Supervision of one server: connection, published catalogue, subscriptions and calls."""

import asyncio
import logging
import random
from contextlib import nullcontext, suppress
from functools import partial
from time import time
from typing import Any

from toolbus_common.concurrency import completely, end, first_of, in_background
from toolbus_common.config import Server
from toolbus_common.contracts import (
    CallAdmitted,
    Listing,
    ServerConnected,
    ServerLost,
    ServerState,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.secrets import Values
from toolbus_common.service.service import Service
from toolbus_executor.calls.call_handler import CallHandler
from toolbus_executor.catalog.client_specific_lists import list_for_all_classes
from toolbus_executor.catalog.definition_pins import Pins, suspicious
from toolbus_executor.catalog.list_problems import ListProblems
from toolbus_executor.catalog.publisher import CatalogPublisher
from toolbus_executor.dependencies import Dependencies
from toolbus_executor.guards.outside_calls import OutsideCalls
from toolbus_executor.resilience.failure_log import loss_reason, why
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.server_events import about_server
from toolbus_executor.servers.buckets import Buckets
from toolbus_executor.servers.lease import Lease
from toolbus_executor.servers.notification_publisher import NotificationPublisher
from toolbus_executor.servers.refresh_schedule import refresh_pause, refreshed_elsewhere
from toolbus_executor.upstreams.base import Described, Upstream, UpstreamCallbacks, close_completely
from toolbus_executor.upstreams.factory import kind_of, secrets_of
from toolbus_executor.upstreams.listing import repairs_of
from toolbus_executor.upstreams.mcp.attribution import Dropped
from toolbus_executor.upstreams.process.isolation_status import IsolationStatus
from toolbus_executor.upstreams.sessions.idle_shutdown import described_in, is_current
from toolbus_executor.upstreams.sessions.separate_sessions import separation_of
from toolbus_executor.upstreams.subscriptions import Watched

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
SETTLE_SECONDS = 0.1  # pause before listing, because list changes arrive in bursts
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
STEADY_SECONDS = 10.0  # the pause is reset after a connection of this length


class ServerSupervisor:
    """Supervisor of one configured server. It runs until the configuration changes."""

    def __init__(
        self,
        name: str,
        declared: Server,
        service: Service,
        buckets: Buckets,
        pins: Pins,
        dependencies: Dependencies,
    ) -> None:
        self.name = name
        self.declared = declared
        self.watched = Watched(self._rewatch)
        self.followed = Watched(self._rewatch)
        self.separation = separation = separation_of(name, declared, dependencies.starts)
        self.handler = CallHandler(
            name, declared, service.events, self.watched, self.followed, separation
        )
        self.handler.guards, self.handler.secrets = dependencies.guards, dependencies.held
        self._spills = self.handler.spills = SpillRegistry(
            dependencies.large_results, declared.results
        )
        self.state = ServerState.CONNECTING
        self.described: Described | None = None
        self.resets = 0  # reset count of the server at the supervisor's start
        self.fresh = False  # if set, list the server again even if its configuration is unchanged
        self.held = IsolationStatus(name)
        self._list_problems = ListProblems(name, service.events)
        self._lost_at = 0.0
        self._published_reason = ""  # published reason of the lost connection
        self._service = service
        self._pins = buckets.pins
        self._dependencies = dependencies
        self.alone = declared.is_process and separation is None  # one executor at a time serves it
        self._lease = Lease(buckets.leases, name, service.events.producer) if self.alone else None
        self.entry = CatalogPublisher(
            name, declared.definitions, buckets.catalogue, pins, service.events
        )
        self.entry.on_uncallable = self.handler.set_uncallable
        self.lists_changed = asyncio.Event()
        self._retry = asyncio.Event()
        self._pause: float | None = None  # seconds until the server's lists expire
        outside = OutsideCalls(name, declared, dependencies.guards, dependencies.held)
        self._notifications = NotificationPublisher(name, service, self.watched, outside)
        self._unattributed = Dropped(name)
        # Before the first connection, other executors serve the calls.
        self._accept_calls = partial(
            service.calls.serve, CallAdmitted, name, self.handler.run, "executor"
        )
        self._task = asyncio.create_task(self._run())

    async def status(self) -> dict[str, Any]:
        """Return the row of this server in `toolbus status`."""
        elsewhere = self._lease is not None and self._lease.elsewhere
        shown = (await self.entry.now() if elsewhere else None) or self._local_listing()
        return {
            "name": self.name,
            "kind": kind_of(self.declared),
            "state": shown.state.value,
            "family": shown.family,
            "version": shown.version,
            "tools": len(shown.tools),
            "quarantined": len(shown.quarantined),
            "suspicious": suspicious(shown),
            "dropped": shown.dropped,
            "repaired": repairs_of(shown),
            "failed_lists": shown.failed,
            "lost_at": shown.lost_at,
            "owner": not elsewhere,
            **self.handler.status(),
            **self.held.status(),
            "dropped_messages": self._unattributed.counts,
            "resets": self.resets,
            "sessions": self.separation.pool.status() if self.separation is not None else None,
            "last_failure": self.handler.breaker.failures.last
            or ("" if elsewhere else self.handler.why_not),
        }

    def retry_now(self) -> None:
        """Reconnect immediately, because the cause of the failure may have been removed."""
        self._retry.set()

    async def stop(self, *, removed: bool) -> None:
        """Disconnect from the server. If `removed` is set, also delete its catalogue entry."""
        self.handler.close()
        self.watched.close()
        self.followed.close()
        await end(self._task)
        if self.separation is not None:
            await self.separation.pool.shut_down()
        if self.handler.session_router is not None:
            await self.handler.session_router.close()
        await self._spills.close()
        await self.entry.close(removed=removed)

    async def _run(self) -> None:
        """Serve calls until the task is cancelled. Restart after unexpected errors."""
        while True:
            try:
                await (self._serve() if self._lease is None else self._serve_alone(self._lease))
            except Exception:
                log.exception("server.internal_error", extra={"server": self.name})
            await asyncio.sleep(FIRST_PAUSE)

    async def _serve_alone(self, lease: Lease) -> None:
        """Acquire the server's lease, and serve calls until the lease is lost."""
        await lease.acquire()
        try:
            await first_of(self._serve(), lease.keep())  # serving never ends by itself
            log.warning("server.lease_lost", extra={"server": self.name})
        finally:
            await completely(lease.release())

    async def _serve(self) -> None:
        """Serve calls. Reconnect whenever the connection is lost."""
        pause = FIRST_PAUSE
        try:
            await self._sleep_at_start()
            if self.handler.idling.awaited:
                await self._accept_calls()
            while True:
                await self.handler.idling.until_wanted()
                began = asyncio.get_running_loop().time()
                self._retry.clear()
                reason = await self._connection()
                await self._accept_calls()
                if self.handler.idling.asleep and not reason:
                    continue
                steady = asyncio.get_running_loop().time() - began > STEADY_SECONDS
                if steady or self.handler.idling.answered:
                    pause = FIRST_PAUSE
                await self._publish_lost(reason)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._retry.wait(), pause * random.uniform(0.8, 1.2))  # noqa: S311
                pause = FIRST_PAUSE if self._retry.is_set() else min(LONGEST_PAUSE, pause * 2)
        finally:
            self.handler.idling.settle()
            await completely(self._service.calls.leave(CallAdmitted, self.name))

    async def _sleep_at_start(self) -> None:
        """Start in the idle state if the published listing has the current configuration."""
        if self.fresh or not self.handler.idling.scales:
            return
        known = await self.entry.now()
        if known is None or not is_current(known, self.declared):
            return
        self.state, self.described = known.state, described_in(known)
        await self.handler.checks.learn(known.tools)
        self.entry.adopt(known)
        self.entry.reapply_pins()
        self.handler.idling.fall_asleep()

    async def _connection(self) -> str:
        """Run one connection. Return why it ended; an empty text if the server was idle."""
        upstream: Upstream | None = None
        secrets: Values = {}
        try:
            first_start = self.declared.is_process and self.described is None
            async with (
                self._dependencies.starts if first_start else nullcontext(),
                asyncio.timeout(CONNECT_SECONDS),
            ):
                secrets = await self._dependencies.read_secrets(self.declared)
                upstream = self._dependencies.create_upstream(
                    self.name,
                    self.declared,
                    self._consumers(),
                    secrets,
                    self._service.events,
                    self._spills,
                    self.separation,
                )
                self.described = await upstream.open()
                listing = await self._listing(upstream)
                await self._watch(upstream)
                # The server accepts calls before its listing is published.
                self.handler.upstream, self.handler.why_not = upstream, ""
                self.handler.idling.settle()
                await self._accept_calls()
                await self._publish(listing)
            self._connected()
            async with in_background(self.handler.health.watch(upstream)):
                return await self._attend(upstream, secrets)
        except ToolbusError as error:
            return loss_reason(self.name, error, lambda: secrets_of(self.declared, secrets))
        except TimeoutError:
            return (
                f"It did not connect and list its tools within {CONNECT_SECONDS:g} s; check its "
                "address, or its command and log."
            )
        except Exception:
            log.exception("server.internal_error", extra={"server": self.name})
            return "Its reply could not be processed; see the executor log."
        finally:
            self.handler.upstream = None
            if upstream is not None:
                await close_completely(upstream)
                self.held.ended(upstream)

    def _consumers(self) -> UpstreamCallbacks:
        """Return the callbacks for a connection's messages that belong to no call."""
        ownership = self.separation.ownership if self.separation is not None else None
        on_request = ownership.note_question if ownership is not None else None
        return self._notifications.callbacks(
            self.lists_changed.set, self._relist, self._unattributed, on_request
        )

    async def _relist(self, call: CallAdmitted) -> None:
        """List the server again for a call. Raises an error if the tool is quarantined now."""
        if self.handler.upstream is not None:
            await self._publish(await self._listing(self.handler.upstream))
            self.handler.reject_quarantined(call)

    def _rewatch(self) -> None:
        """Update the subscriptions at the server in a background task."""
        if self.handler.upstream is not None:
            self._service.spawn(self._watch(self.handler.upstream))

    async def _watch(self, upstream: Upstream) -> None:
        """Subscribe to the resources and tasks that callers are subscribed to."""
        try:
            await upstream.watch(self.watched.names)
            await upstream.follow(self.followed.names)
        except (ToolbusError, TimeoutError) as error:
            log.info("server.not_subscribed", extra={"server": self.name, "reason": why(error)})

    async def _attend(self, upstream: Upstream, secrets: Values) -> str:
        """Update the lists until the connection ends.

        Return the reason; empty if the server is idle.
        """
        changed_secret = self._dependencies.secrets.until_changed(secrets)
        lost = asyncio.ensure_future(first_of(upstream.wait_lost(), changed_secret))
        idle = asyncio.ensure_future(self.handler.idling.until_due())
        try:
            while not lost.done():
                changed = asyncio.ensure_future(self.lists_changed.wait())
                await asyncio.wait(
                    (lost, changed, idle), timeout=self._pause, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                if lost.done():
                    break
                if idle.done():
                    if self.handler.idling.falls_asleep():
                        return ""
                    idle = asyncio.ensure_future(self.handler.idling.until_due())
                    continue
                await (self._take_change if self.lists_changed.is_set() else self._renew)(upstream)
            return lost.result()
        finally:
            lost.cancel()
            idle.cancel()

    async def _take_change(self, upstream: Upstream) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._publish(await self._listing(upstream))
        await self._notifications.publish_list_changes()

    async def _renew(self, upstream: Upstream) -> None:
        """Refresh expired lists, or use the lists that another replica has refreshed.

        If the server does not reply, the connection stays open, and the failure is published.
        """
        try:
            known = await self.entry.now()
            if known is not None and refreshed_elsewhere(known):
                held = (each for each in known.quarantined if each.kind == "tools")
                await self.handler.checks.learn((*known.tools, *held))
                await self.handler.checks.learn(known.tools)
                self._take_note(upstream, known)
                self.entry.adopt(known)
                return
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._publish(await self._listing(upstream))
            await self._notifications.publish_list_changes()
        except (ToolbusError, TimeoutError) as error:
            reason = why(error) or f"it did not list its tools within {CONNECT_SECONDS:g} s"
            log.warning("server.refresh_failed", extra={"server": self.name, "reason": reason})
            failed = {"failed": {"tools/list": reason}}
            self._list_problems.note(self._local_listing().model_copy(update=failed))

    async def _listing(self, upstream: Upstream) -> Listing:
        """List the server and apply the result: calls of quarantined tools are rejected."""
        self.lists_changed.clear()
        assert self.described is not None  # noqa: S101 - set on connect
        listing = await list_for_all_classes(self.described, upstream, self.entry, self.declared)
        await self.handler.checks.learn(listing.tools)
        self._take_note(upstream, listing)
        self.entry.ours = self.described.ours
        return await self.entry.take(listing, self._pins)

    def _take_note(self, upstream: Upstream, listing: Listing) -> None:
        self._list_problems.note(listing)
        upstream.learn(listing.tools)
        if self.handler.cache is not None:
            self.handler.cache.learn(listing.tools)
        self._pause = refresh_pause(listing)

    async def _publish(self, listing: Listing) -> None:
        self.state = listing.state
        await self.entry.publish(listing)

    def _local_listing(self) -> Listing:
        """Return the listing of this executor, with the current state of the connection."""
        described = self.described or Described("", "")
        listed = self.entry.listed or Listing(server=self.name, state=self.state)
        problems = {"dropped": self._list_problems.dropped, "failed": self._list_problems.failed}
        seen = {"state": self.state, "family": described.family, "version": described.version}
        return listed.model_copy(update={**problems, **seen, "lost_at": self._lost_at})

    def _connected(self) -> None:
        version = self.described.version if self.described else ""
        if self.declared.is_process:
            self.handler.breaker.succeeded()  # drop the failures of the previous process
            self.held.tell(self.handler.upstream)
        self._lost_at, self._published_reason = 0.0, ""
        tools = len(self.entry.listed.tools) if self.entry.listed else 0
        log.info("server.connected", extra={"server": self.name, "tools": tools})
        self._service.events.publish(
            ServerConnected(**about_server(self.name, "connected"), tools=tools, version=version)
        )

    async def _publish_lost(self, reason: str) -> None:
        """Publish the lost connection, once per reason, and mark the last listing as stale."""
        self.handler.why_not = reason
        self.handler.idling.settle()
        self._lost_at = self._lost_at or time()
        if reason != self._published_reason:
            self._published_reason = reason
            log.warning("server.lost", extra={"server": self.name, "reason": reason})
            self._service.events.publish(
                ServerLost(**about_server(self.name, "lost"), reason=reason)
            )
        with suppress(Exception):  # if the bus is down, the next connection publishes the entry
            known = await self.entry.now()
            stale = known is not None and (known.tools or known.quarantined)
            state = ServerState.STALE if stale else ServerState.FAILED
            listing = known or Listing(server=self.name, state=state)
            # If another replica lost the connection earlier, its time is published.
            self._lost_at = listing.lost_at or self._lost_at
            status = {"state": state, "reason": reason, "lost_at": self._lost_at}
            await self._publish(listing.model_copy(update=status))
