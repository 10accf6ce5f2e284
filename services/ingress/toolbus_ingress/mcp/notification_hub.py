"""Notifications that belong to no call: brought to every open stream that wants them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_common import strict_json
from toolbus_common.contracts import ProtocolFamily, ServerNotification
from toolbus_common.errors import ToolbusError
from toolbus_common.mcp.client_classes import NONE, class_of
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.mcp.call_handler import Relay
from toolbus_ingress.mcp.tasks import task_key
from toolbus_ingress.protocol_versions import CAPABILITIES, META, Request, takes_tasks
from toolbus_ingress.sessions.event_log import LARGEST, Journal
from toolbus_ingress.sessions.event_log_store import STANDING, Shelf
from toolbus_ingress.sessions.sse_writer import EventStream, attend

MOST_WAITING = 1000
MOST_OLD_BYTES = 16 * 1024 * 1024  # the stream of HTTP+SSE carries answers too
MOST_STREAMS = 10_000
MOST_URIS = 1000
RENEW_SECONDS = 300.0  # servers' subscriptions are leased to those who still listen
SETTLE_SECONDS = 0.05  # changes come in bursts
MERGE_SECONDS = 0.1  # every executor that watches a resource says that it changed
MOST_MERGED = 10_000

_LISTED = {
    "toolsListChanged": ("tools/list",),
    "promptsListChanged": ("prompts/list",),
    "resourcesListChanged": ("resources/list", "resources/templates/list"),
}
_CHANGES = {
    kind: f"notifications/{LISTS[methods[0]][0]}/list_changed" for kind, methods in _LISTED.items()
}
_UPDATED = "notifications/resources/updated"
_MOVED = {
    "notifications/tasks": ProtocolFamily.MODERN,
    "notifications/tasks/status": ProtocolFamily.LEGACY,
}

Said = tuple[str, str, str, str]  # of a server: what, and the principal and session it is for


@dataclass(eq=False, slots=True)
class Listener:
    """One open stream. `mark` is the raw id every frame of a modern subscription repeats."""

    visit: Visit
    family: ProtocolFamily
    kinds: tuple[str, ...]
    uris: set[str]
    tasks: dict[str, str]  # handles by what servers' news call them
    mail: Journal
    mark: bytes = b""
    client: str = NONE  # the class of a client without a session, by what it can be asked
    seen: dict[str, bytes] = field(default_factory=dict)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Put a notification on its way."""
        self.mail.put(_notification(method, params, self.mark))


class Hub:
    """The open streams of this replica."""

    def __init__(self, catalogue: Catalogue, relay: Relay, shelf: Shelf) -> None:
        self._catalogue = catalogue
        self._relay = relay
        self._shelf = shelf
        self._listeners: set[Listener] = set()
        self._comparison: asyncio.TimerHandle | None = None
        self._said_changed: set[Said] = set()  # servers, what they said, and to whom
        self._keys_changed: set[str] = set()
        self._lists_changed = False
        self._updated: dict[Said, tuple[dict[str, Any], bool]] = {}  # by server, URI, and for whom
        self._telling: asyncio.TimerHandle | None = None
        self.on_asked: Callable[[ServerNotification], None] = lambda _said: None
        catalogue.on_change.append(self._hear_lists)

    @property
    def full(self) -> bool:
        """Whether no more streams are taken."""
        return len(self._listeners) >= MOST_STREAMS

    async def follow_session(self, visit: Visit, where: str = "") -> None:
        """Serve a session's own stream; with `where` messages are posted in HTTP+SSE."""
        session = visit.session
        assert session is not None  # noqa: S101 - the endpoint has found it
        bound = MOST_OLD_BYTES if where else LARGEST
        mail = self._shelf.open(session, STANDING, MOST_WAITING, bound)
        stream = EventStream(visit.send)
        await (stream.endpoint(where) if where else stream.begin())
        if session.polls:
            mail.mark()
        uris, tasks = session.uris, session.tasks
        listener = Listener(visit, ProtocolFamily.LEGACY, tuple(_LISTED), uris, tasks, mail)
        self._open(listener, Request(b"", "", {}, ProtocolFamily.LEGACY))
        await attend(visit.scope, mail.read(), stream)

    async def follow_subscription(self, visit: Visit, request: Request) -> None:
        """Serve subscriptions/listen (MCP 2026-07-28): acknowledge, tell, and end with a result."""
        wanted = request.params.get("notifications")
        wanted = wanted if isinstance(wanted, dict) else {}
        uris = await self._subscribed(visit, request, wanted.get("resourceSubscriptions"))
        tasks = await self._followed(visit, request, wanted.get("taskIds"))
        kinds = tuple(kind for kind in _LISTED if wanted.get(kind) is True)
        mail = Journal(most=MOST_WAITING)
        listener = Listener(visit, ProtocolFamily.MODERN, kinds, set(uris), tasks, mail, request.id)
        listener.client = class_of(request.meta.get(CAPABILITIES))
        honoured: dict[str, Any] = dict.fromkeys(kinds, True)
        if uris:
            honoured["resourceSubscriptions"] = uris
        if tasks:
            honoured["taskIds"] = list(tasks.values())
        acknowledged = {"notifications": honoured}
        listener.tell("notifications/subscriptions/acknowledged", acknowledged)
        self._open(listener, request)
        result = {"resultType": "complete", "_meta": {META + "subscriptionId": _raw(request.id)}}
        end = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request.id, msgspec.json.encode(result))
        await attend(visit.scope, mail.read(), EventStream(visit.send), end)

    def stream_of(self, sid: str, principal_id: str) -> Listener | None:
        """Return the open stream of a client session, if this replica has it."""
        for listener in self._listeners:
            is_read = listener.family is ProtocolFamily.LEGACY and listener.mail.reader is not None
            if is_read and self._is_for(listener, principal_id, sid):
                return listener
        return None

    def hear(self, said: ServerNotification) -> None:
        """A server said something that belongs to no call."""
        if said.asked:
            self.on_asked(said)
            return
        if said.method in _CHANGES.values():
            self._said_changed.add((said.server, said.method, said.principal_id, said.session))
            self._compare_soon()
        with suppress(msgspec.DecodeError):
            if said.method == _UPDATED and self._listeners:
                self._merge(said, msgspec.json.decode(said.params, type=dict[str, Any]))
            elif said.method in _MOVED:
                self._tell_moved(said)

    def hear_key(self, name: str) -> None:
        """A key is another one now: its own streams may have to end, or to be told."""
        if self._listeners:
            self._keys_changed.add(name)
            self._compare_soon()

    def bring(self, sid: str, message: bytes) -> bool:
        """Put an answer on the stream of a session of HTTP+SSE; whether it is open here."""
        for listener in self._listeners:
            if listener.visit.session is not None and listener.visit.session.sid == sid:
                listener.mail.put(message)
                return True
        return False

    def leave(self, sid: str) -> None:
        """End the streams of a session that has ended."""
        for listener in tuple(self._listeners):
            if listener.visit.session is not None and listener.visit.session.sid == sid:
                listener.mail.close()
        self._shelf.leave(sid)

    def close(self) -> None:
        """End every stream, in good order."""
        for listener in tuple(self._listeners):
            listener.mail.close()
        self._shelf.close()

    def _open(self, listener: Listener, request: Request) -> None:
        """Listen until the journal ends: it may outlive the connection that reads it."""
        listener.seen = self._lists(listener)
        self._listeners.add(listener)
        renewing = asyncio.create_task(self._renew(listener, request))

        def over() -> None:
            renewing.cancel()
            self._listeners.discard(listener)

        listener.mail.on_ended = over
        self._admit(listener)  # its key may have ended while the stream was opened

    async def _subscribed(self, visit: Visit, request: Request, uris: Any) -> list[str]:
        """Those of the wanted resources that can be watched."""
        wanted = _texts(uris)
        attempts = [self._relay.subscribe(visit, request, uri) for uri in wanted]
        ends = await asyncio.gather(*attempts, return_exceptions=True)
        return [uri for uri, end in zip(wanted, ends, strict=True) if end is None]

    async def _followed(self, visit: Visit, request: Request, handles: Any) -> dict[str, str]:
        """Those of the wanted tasks that their servers tell of."""
        wanted = _texts(handles) if takes_tasks(request) else []
        attempts = [self._relay.follow(visit, request, handle) for handle in wanted]
        ends = await asyncio.gather(*attempts, return_exceptions=True)
        return {key: each for each, key in zip(wanted, ends, strict=True) if isinstance(key, str)}

    async def _renew(self, listener: Listener, request: Request) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self._admit(listener)  # a key may have expired
            for uri in tuple(listener.uris):
                with suppress(ToolbusError):
                    await self._relay.subscribe(listener.visit, request, uri)
            if listener.family is ProtocolFamily.MODERN:
                await self._followed(listener.visit, request, list(listener.tasks.values()))

    def _admit(self, listener: Listener) -> bool:
        """Whether its key still opens anything; a stream never outlives its key."""
        caller = listener.visit.caller
        found = self._catalogue.holder(caller.key_digest, caller.restriction)
        if found is None:
            listener.mail.close()
            return False
        listener.visit = replace(
            listener.visit, caller=replace(caller, name=found[0], bounds=found[1])
        )
        return True

    def _merge(self, said: ServerNotification, params: dict[str, Any]) -> None:
        """Tell soon, once for all who say the same until then.

        Nothing is lost by it: whoever reads after being told sees every change that was merged.
        """
        uri = params.get("uri")
        if not isinstance(uri, str):
            return
        about = said.server, uri, said.principal_id, said.session
        unasked = said.unasked and self._updated.get(about, ({}, True))[1]
        self._updated[about] = params, unasked
        if len(self._updated) >= MOST_MERGED:
            self._tell_merged()
        elif self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(MERGE_SECONDS, self._tell_merged)

    def _tell_merged(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        updated, self._updated = self._updated, {}
        told: set[tuple[Listener, str, str]] = set()  # in a session of its own, and in another
        for (server, uri, *meant), (params, unasked) in updated.items():
            for listener in tuple(self._listeners):
                once = listener, server, uri
                if once in told or not self._is_for(listener, *meant):
                    continue
                if self._tell_updated(listener, server, params, unasked=unasked):
                    told.add(once)

    def _is_for(self, listener: Listener, principal_id: str, session: str) -> bool:
        """Whether what a server said in somebody's session there is for this stream."""
        if not principal_id:
            return True
        own = listener.visit.session
        if session and (own is None or own.sid != session):
            return False
        return self._catalogue.principal_id(listener.visit.caller.key_digest) == principal_id

    def _tell_updated(
        self, listener: Listener, server: str, params: dict[str, Any], *, unasked: bool
    ) -> bool:
        """Tell a stream that subscribed, or, where nobody did, each session that may read it.

        A stream of the stateless family hears of what it asked for and of nothing else.
        """
        uri, caller = str(params["uri"]), listener.visit.caller
        if caller.server not in ("", server):
            return False
        shown = uri if caller.server else self._catalogue.shelves.shown(server, uri)
        wanted = shown in listener.uris or (unasked and listener.family is ProtocolFamily.LEGACY)
        if not wanted or not self._catalogue.sees(caller.bounds, server, uri):
            return False
        listener.tell(_UPDATED, {**params, "uri": shown})
        return True

    def _tell_moved(self, said: ServerNotification) -> None:
        """Tell whoever holds a task how it goes on."""
        params = msgspec.json.decode(said.params, type=dict[str, msgspec.Raw])
        key = task_key(said.server, msgspec.json.decode(params.get("taskId", b"null")))
        for listener in tuple(self._listeners):
            handle = listener.tasks.get(key)
            if handle is None or listener.family is not _MOVED[said.method]:
                continue
            if not self._is_for(listener, said.principal_id, said.session):
                continue
            if self._relay.tasks.holds(handle, listener.visit.caller):
                listener.tell(said.method, {**params, "taskId": handle})

    def _hear_lists(self) -> None:
        self._lists_changed = True
        self._compare_soon()

    def _compare_soon(self) -> None:
        if self._listeners and self._comparison is None:
            loop = asyncio.get_running_loop()
            self._comparison = loop.call_later(SETTLE_SECONDS, self._compare)

    def _compare(self) -> None:
        """Tell each stream which of the lists it sees changed, or are said to have changed."""
        self._comparison = None
        said, self._said_changed = self._said_changed, set()
        keys, self._keys_changed = self._keys_changed, set()
        everybody, self._lists_changed = bool(said) or self._lists_changed, False
        for listener in tuple(self._listeners):
            concerned = everybody or listener.visit.caller.name in keys
            if not concerned or not self._admit(listener):
                continue
            now = self._lists(listener)
            seen, listener.seen = listener.seen, now
            told = {
                method
                for server, method, *meant in said
                if self._concerns(listener, server) and self._is_for(listener, *meant)
            }
            for kind in listener.kinds:
                changed = any(now[method] != seen[method] for method in _LISTED[kind])
                if changed or _CHANGES[kind] in told:
                    listener.tell(_CHANGES[kind], {})

    def _concerns(self, listener: Listener, server: str) -> bool:
        caller = listener.visit.caller
        visible = self._catalogue.visible(caller.bounds, caller.server)
        return any(listing.server == server for listing in visible)

    def _lists(self, listener: Listener) -> dict[str, bytes]:
        caller, listed = listener.visit.caller, self._catalogue.listed
        session = listener.visit.session
        client = class_of(session.declared) if session is not None else listener.client
        return {
            method: listed(
                method, caller.bounds, caller.server, listener.family, caller.mode, client
            )
            for kind in listener.kinds
            for method in _LISTED[kind]
        }


def _texts(found: Any) -> list[str]:
    """The texts of a list a client sent: each once, and not too many."""
    texts = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
    return list(dict.fromkeys(texts))[:MOST_URIS]


def _notification(method: str, params: dict[str, Any], mark: bytes) -> bytes:
    if mark:
        meta = params.get("_meta")
        own = {META + "subscriptionId": _raw(mark)}
        params = {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), **own}}
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        body["params"] = params
    return strict_json.dump(body)


def _raw(text: bytes) -> msgspec.Raw:
    return msgspec.Raw(text)
