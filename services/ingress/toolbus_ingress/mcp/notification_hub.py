"""The notification hub: delivers notifications that belong to no call to the open streams."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_common.contracts import ProtocolFamily, ServerNotification
from toolbus_common.errors import ToolbusError
from toolbus_common.mcp.client_classes import NONE, class_of
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.tasks import task_key
from toolbus_ingress.protocol_versions import CAPABILITIES, META, Request, declares_tasks
from toolbus_ingress.sessions.event_log import LARGEST, EventLog
from toolbus_ingress.sessions.event_log_store import SESSION_STREAM, EventLogStore
from toolbus_ingress.sessions.sse_writer import EventStream, serve_reader

MAX_WAITING = 1000
MAX_HTTP_SSE_BYTES = 16 * 1024 * 1024  # the stream of HTTP+SSE contains answers too
MAX_STREAMS = 10_000
MAX_URIS = 1000
RENEW_SECONDS = 300.0  # servers' subscriptions are leases, renewed for open streams
SETTLE_SECONDS = 0.05  # list changes arrive in bursts
MERGE_SECONDS = 0.1  # each executor that watches a resource reports the same update
MAX_MERGED = 10_000

_LISTS_OF_KIND = {
    "toolsListChanged": ("tools/list",),
    "promptsListChanged": ("prompts/list",),
    "resourcesListChanged": ("resources/list", "resources/templates/list"),
}
_LIST_CHANGED = {
    kind: f"notifications/{LISTS[methods[0]][0]}/list_changed"
    for kind, methods in _LISTS_OF_KIND.items()
}
_RESOURCE_UPDATED = "notifications/resources/updated"
_TASK_STATUS = {
    "notifications/tasks": ProtocolFamily.MODERN,
    "notifications/tasks/status": ProtocolFamily.LEGACY,
}

# A server, the method or URI, and the principal and session that the notification is for.
NotificationKey = tuple[str, str, str, str]


@dataclass(eq=False, slots=True)
class Listener:
    """One open stream.

    `tasks` maps task keys to handles. `subscription_id` is the raw id that each message of a
    stateless subscription repeats. `client` is the class of a client without a session.
    """

    context: RequestContext
    family: ProtocolFamily
    kinds: tuple[str, ...]
    uris: set[str]
    tasks: dict[str, str]
    event_log: EventLog
    subscription_id: bytes = b""
    client: str = NONE
    seen: dict[str, bytes] = field(default_factory=dict)
    renewal: asyncio.TimerHandle | asyncio.Task[None] = field(init=False)  # the next renewal

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Append a notification to the stream's log."""
        if self.subscription_id:
            meta = params.get("_meta")
            own = {META + "subscriptionId": msgspec.Raw(self.subscription_id)}
            params = {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), **own}}
        self.event_log.put(jsonrpc.notification(method, params))


class NotificationHub:
    """The open streams of this replica, and the notifications to send on them."""

    def __init__(
        self, catalogue: Catalogue, call_handler: CallHandler, event_logs: EventLogStore
    ) -> None:
        self._catalogue = catalogue
        self._call_handler = call_handler
        self._event_logs = event_logs
        self._listeners: set[Listener] = set()
        self._by_session: defaultdict[str, set[Listener]] = defaultdict(set)
        self._comparison: asyncio.TimerHandle | None = None
        self._reported_changes: set[NotificationKey] = set()
        self._keys_changed: set[str] = set()
        self._lists_changed = False
        # Updates to deliver: the params, and whether the update was sent without a subscription.
        self._updates: dict[NotificationKey, tuple[dict[str, Any], bool]] = {}
        self._update_timer: asyncio.TimerHandle | None = None
        self.on_server_request: Callable[[ServerNotification], None] = lambda _request: None
        catalogue.on_change.append(self._on_catalogue_change)

    @property
    def full(self) -> bool:
        """Whether the limit of open streams is reached."""
        return len(self._listeners) >= MAX_STREAMS

    # -- streams -------------------------------------------------------------------------------

    async def serve_session_stream(self, context: RequestContext, post_url: str = "") -> None:
        """Serve a session's own stream; `post_url` is the URL for messages in HTTP+SSE."""
        session = context.session
        assert session is not None  # noqa: S101 - the endpoint has found it
        bound = MAX_HTTP_SSE_BYTES if post_url else LARGEST
        event_log = self._event_logs.open(session, SESSION_STREAM, MAX_WAITING, bound)
        stream = EventStream(context.send)
        await (stream.endpoint(post_url) if post_url else stream.start())
        if session.polls:
            event_log.mark()
        listener = Listener(
            context,
            ProtocolFamily.LEGACY,
            tuple(_LISTS_OF_KIND),
            session.uris,
            session.tasks,
            event_log,
        )
        self._add(listener, Request(b"", "", {}, ProtocolFamily.LEGACY))
        await serve_reader(context.scope, event_log.read(), stream)

    async def serve_subscription(self, context: RequestContext, request: Request) -> None:
        """Serve subscriptions/listen (MCP 2026-07-28): acknowledge, notify, end with a result."""
        requested = request.params.get("notifications")
        requested = requested if isinstance(requested, dict) else {}
        uris = await self._subscribe(context, request, requested.get("resourceSubscriptions"))
        tasks = await self._follow_tasks(context, request, requested.get("taskIds"))
        kinds = tuple(kind for kind in _LISTS_OF_KIND if requested.get(kind) is True)
        event_log = EventLog(maximum=MAX_WAITING)
        listener = Listener(
            context, ProtocolFamily.MODERN, kinds, set(uris), tasks, event_log, request.id
        )
        listener.client = class_of(request.meta.get(CAPABILITIES))
        accepted: dict[str, Any] = dict.fromkeys(kinds, True)
        if uris:
            accepted["resourceSubscriptions"] = uris
        if tasks:
            accepted["taskIds"] = list(tasks.values())
        listener.notify("notifications/subscriptions/acknowledged", {"notifications": accepted})
        self._add(listener, request)
        meta = {META + "subscriptionId": msgspec.Raw(request.id)}
        result = msgspec.json.encode({"resultType": "complete", "_meta": meta})
        last = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request.id, result)
        await serve_reader(context.scope, event_log.read(), EventStream(context.send), last)

    def stream_of(self, sid: str, principal_id: str) -> Listener | None:
        """Return the open stream of a client session, if this replica has it."""
        for listener in self._listeners:
            is_read = (
                listener.family is ProtocolFamily.LEGACY and listener.event_log.reader is not None
            )
            if is_read and self._is_for(listener, principal_id, sid):
                return listener
        return None

    def deliver(self, sid: str, message: bytes) -> bool:
        """Put an answer on a session's HTTP+SSE stream; return whether the stream is open here."""
        for listener in self._by_session.get(sid, ()):
            listener.event_log.put(message)
            return True
        return False

    def session_ended(self, sid: str) -> None:
        """End the streams of a session that ended."""
        for listener in tuple(self._by_session.get(sid, ())):
            listener.event_log.close()
        self._event_logs.remove_session(sid)

    def close(self) -> None:
        """End every stream with its last message."""
        for listener in tuple(self._listeners):
            listener.event_log.close()
        self._event_logs.close()

    def _add(self, listener: Listener, request: Request) -> None:
        """Add a listener until its log ends; the log may outlive the connection that reads it."""
        listener.seen = self._lists(listener)
        self._listeners.add(listener)
        self._by_session[listener.context.sid].add(listener)
        self._schedule_renewal(listener, request)
        listener.event_log.on_ended = lambda: self._remove(listener)
        self._refresh_caller(listener)  # the key may have ended while the stream was opened

    def _remove(self, listener: Listener) -> None:
        listener.renewal.cancel()
        self._listeners.discard(listener)
        sid = listener.context.sid
        self._by_session[sid].discard(listener)
        if not self._by_session[sid]:
            del self._by_session[sid]

    async def _subscribe(self, context: RequestContext, request: Request, uris: Any) -> list[str]:
        """Subscribe to resources at their servers; return the URIs that succeeded."""
        wanted = _distinct_strings(uris)
        attempts = [self._call_handler.subscribe(context, request, uri) for uri in wanted]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        return [uri for uri, result in zip(wanted, results, strict=True) if result is None]

    async def _follow_tasks(
        self, context: RequestContext, request: Request, handles: Any
    ) -> dict[str, str]:
        """Subscribe to tasks at their servers; return successful handles by the task's key."""
        wanted = _distinct_strings(handles) if declares_tasks(request) else []
        attempts = [self._call_handler.follow(context, request, handle) for handle in wanted]
        keys = await asyncio.gather(*attempts, return_exceptions=True)
        return {
            key: handle for handle, key in zip(wanted, keys, strict=True) if isinstance(key, str)
        }

    def _schedule_renewal(self, listener: Listener, request: Request) -> None:
        """Schedule the next renewal by a timer, because most streams end before it is due."""

        def start() -> None:
            listener.renewal = asyncio.create_task(self._renew(listener, request))

        listener.renewal = asyncio.get_running_loop().call_later(RENEW_SECONDS, start)

    async def _renew(self, listener: Listener, request: Request) -> None:
        if not self._refresh_caller(listener):  # the key has expired
            return
        for uri in tuple(listener.uris):
            with suppress(ToolbusError):
                await self._call_handler.subscribe(listener.context, request, uri)
        if listener.family is ProtocolFamily.MODERN:
            handles = list(listener.tasks.values())
            await self._follow_tasks(listener.context, request, handles)
        self._schedule_renewal(listener, request)

    def _refresh_caller(self, listener: Listener) -> bool:
        """Update the caller's grants; close the stream and return False if the key has ended."""
        caller = listener.context.caller
        found = self._catalogue.holder(caller.key_digest, caller.restrictions)
        if found is None:
            listener.event_log.close()
            return False
        listener.context = replace(
            listener.context, caller=replace(caller, name=found[0], grants=found[1])
        )
        return True

    def _is_for(self, listener: Listener, principal_id: str, session: str) -> bool:
        """Return whether a notification for this principal and session is sent on the stream."""
        if not principal_id:
            return True
        own = listener.context.session
        if session and (own is None or own.sid != session):
            return False
        return self._catalogue.principal_id(listener.context.caller.key_digest) == principal_id

    # -- notifications of servers --------------------------------------------------------------

    def receive(self, notification: ServerNotification) -> None:
        """Accept a server's notification or request that belongs to no call."""
        if notification.request_id:
            self.on_server_request(notification)
            return
        if notification.method in _LIST_CHANGED.values():
            recipient = notification.principal_id, notification.session
            self._reported_changes.add((notification.server, notification.method, *recipient))
            self._compare_soon()
        with suppress(msgspec.DecodeError):
            if notification.method == _RESOURCE_UPDATED and self._listeners:
                params = msgspec.json.decode(notification.params, type=dict[str, Any])
                self._merge_update(notification, params)
            elif notification.method in _TASK_STATUS:
                self._notify_task(notification)

    def _merge_update(self, notification: ServerNotification, params: dict[str, Any]) -> None:
        """Schedule an update notification. Equal updates that arrive before it is sent are merged.

        No change is lost: a client that reads after the notification sees every merged change.
        """
        uri = params.get("uri")
        if not isinstance(uri, str):
            return
        key = notification.server, uri, notification.principal_id, notification.session
        alone = notification.unsolicited and self._updates.get(key, ({}, True))[1]
        self._updates[key] = params, alone
        if len(self._updates) >= MAX_MERGED:
            self._notify_updates()
        elif self._update_timer is None:
            loop = asyncio.get_running_loop()
            self._update_timer = loop.call_later(MERGE_SECONDS, self._notify_updates)

    def _notify_updates(self) -> None:
        if self._update_timer is not None:
            self._update_timer.cancel()
            self._update_timer = None
        updates, self._updates = self._updates, {}
        # The same update may arrive for a stream's own session and for another session.
        notified: set[tuple[Listener, str, str]] = set()
        for (server, uri, *recipient), (params, alone) in updates.items():
            for listener in tuple(self._listeners):
                once = listener, server, uri
                if once in notified or not self._is_for(listener, *recipient):
                    continue
                if self._notify_update(listener, server, params, alone=alone):
                    notified.add(once)

    def _notify_update(
        self, listener: Listener, server: str, params: dict[str, Any], *, alone: bool
    ) -> bool:
        """Notify one stream of an update that it may receive; return whether it was notified.

        A stream of the stateless family receives only updates that it subscribed to.
        """
        uri, caller = str(params["uri"]), listener.context.caller
        if caller.server not in ("", server):
            return False
        shown = uri if caller.server else self._catalogue.resource_index.shown(server, uri)
        wanted = shown in listener.uris or (alone and listener.family is ProtocolFamily.LEGACY)
        if not wanted or not self._catalogue.sees(caller.grants, server, uri):
            return False
        listener.notify(_RESOURCE_UPDATED, {**params, "uri": shown})
        return True

    def _notify_task(self, notification: ServerNotification) -> None:
        """Send a task's status to the streams of the task's owner."""
        params = msgspec.json.decode(notification.params, type=dict[str, msgspec.Raw])
        own_id = msgspec.json.decode(params.get("taskId", b"null"))
        key = task_key(notification.server, own_id)
        for listener in tuple(self._listeners):
            handle = listener.tasks.get(key)
            if handle is None or listener.family is not _TASK_STATUS[notification.method]:
                continue
            if not self._is_for(listener, notification.principal_id, notification.session):
                continue
            if self._call_handler.tasks.holds(handle, listener.context.caller):
                listener.notify(notification.method, {**params, "taskId": handle})

    # -- list changes --------------------------------------------------------------------------

    def key_changed(self, name: str) -> None:
        """Compare the lists of a changed key; end its streams if the key is no longer valid."""
        if self._listeners:
            self._keys_changed.add(name)
            self._compare_soon()

    def _on_catalogue_change(self) -> None:
        self._lists_changed = True
        self._compare_soon()

    def _compare_soon(self) -> None:
        if self._listeners and self._comparison is None:
            loop = asyncio.get_running_loop()
            self._comparison = loop.call_later(SETTLE_SECONDS, self._compare)

    def _compare(self) -> None:
        """Notify each stream of changes in its visible lists, and of reported list changes."""
        self._comparison = None
        reported, self._reported_changes = self._reported_changes, set()
        keys, self._keys_changed = self._keys_changed, set()
        all_streams, self._lists_changed = bool(reported) or self._lists_changed, False
        for listener in tuple(self._listeners):
            affected = all_streams or listener.context.caller.name in keys
            if not affected or not self._refresh_caller(listener):
                continue
            now = self._lists(listener)
            before, listener.seen = listener.seen, now
            methods = {
                method
                for server, method, *recipient in reported
                if self._sees_server(listener, server) and self._is_for(listener, *recipient)
            }
            for kind in listener.kinds:
                changed = any(now[method] != before[method] for method in _LISTS_OF_KIND[kind])
                if changed or _LIST_CHANGED[kind] in methods:
                    listener.notify(_LIST_CHANGED[kind], {})

    def _sees_server(self, listener: Listener, server: str) -> bool:
        caller = listener.context.caller
        visible = self._catalogue.visible(caller.grants, caller.server)
        return any(listing.server == server for listing in visible)

    def _lists(self, listener: Listener) -> dict[str, bytes]:
        caller, list_body = listener.context.caller, self._catalogue.list_body
        session = listener.context.session
        client = class_of(session.declared) if session is not None else listener.client
        return {
            method: list_body(
                method, caller.grants, caller.server, listener.family, caller.mode, client
            )
            for kind in listener.kinds
            for method in _LISTS_OF_KIND[kind]
        }


def _distinct_strings(value: Any) -> list[str]:
    """Return the distinct strings of a list that a client sent, at most `MAX_URIS`."""
    texts = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    return list(dict.fromkeys(texts))[:MAX_URIS]
