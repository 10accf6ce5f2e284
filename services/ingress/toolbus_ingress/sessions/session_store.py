"""Sessions of session-based clients, sealed into their ids so that any replica can serve them."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec

from toolbus_common.contracts import NOTHING, SessionMessage
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, SessionClaims

LIFETIME = 24 * 3600.0  # seconds
MAX_KNOWN = 20_000
MAX_ENDED = 100_000  # ended sessions; a forgotten one is valid again, for its owner
LARGEST_CAPABILITIES = 1024  # bytes; they are part of the session's id, which is a header
MAX_URIS = 1000
MAX_TASKS = 256  # of one session, for status notifications
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

_FORWARDED = (
    "response",
    "message",
)  # not stored: only a waiting replica uses them
_REQUESTABLE = ("elicitation", "sampling", "roots", "tasks")


@dataclass(slots=True)
class Session:
    """One session as this replica knows it.

    `capabilities` are the client's capabilities as raw JSON. `tasks` maps the key of a task in a
    server's notifications to its handle. `in_flight` maps the raw id of a request to its call id.
    """

    token: str
    claims: SessionClaims
    capabilities: str
    declared: dict[str, Any]
    level: str = ""
    uris: set[str] = field(default_factory=set)
    tasks: dict[str, str] = field(default_factory=dict)
    in_flight: dict[bytes, str] = field(default_factory=dict)

    @property
    def sid(self) -> str:
        """The session's name on the bus."""
        return self.claims.sid

    @property
    def resumable(self) -> bool:
        """Whether the session's protocol revision has event ids to resume from."""
        return self.claims.version >= "2025-03-26"

    @property
    def polls(self) -> bool:
        """Whether streams begin with an event id, so that clients resume after an early end."""
        return self.claims.version >= "2025-11-25"

    def can(self, *path: str) -> bool:
        """Return whether the client declared a capability, such as `elicitation`, `url`."""
        found: Any = self.declared
        for step in path:
            if not isinstance(found, dict) or step not in found:
                return False
            found = found[step]
        return found is not None and found is not False


class Sessions:
    """Creates, finds and ends sessions, and shares their state with the other replicas.

    `publish` sends a message to every replica. This replica receives its own messages too, and
    applying them again has no effect.
    """

    def __init__(self, sealer: ClaimSealer, publish: Callable[[SessionMessage], None]) -> None:
        self._sealer = sealer
        self._publish = publish
        self._known: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._by_sid: dict[str, Session] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        # Messages about sessions that this replica has not served yet.
        self._pending: OrderedDict[str, list[SessionMessage]] = OrderedDict()
        self.on_ended: Callable[[str], None] = lambda _sid: None
        self.on_response: Callable[[str, bytes], bool] = lambda _sid, _body: False
        self.on_message: Callable[[str, bytes], bool] = lambda _sid, _body: False
        self.on_cancelled: Callable[[Session, bytes], None] = lambda _session, _request: None
        self.on_roots_changed: Callable[[str], None] = lambda _sid: None

    def begin(self, principal_id: str, version: str, capabilities: Any) -> Session:
        """Create a session for a principal."""
        declared = _bounded(capabilities)
        claims = SessionClaims(
            secrets.token_hex(8), principal_id, version, msgspec.json.encode(declared).decode(),
            time() + LIFETIME,
        )  # fmt: skip
        return self._add(_session(self._sealer.close(claims), claims))

    def find(self, token: bytes, principal_id: str) -> Session | None:
        """Return the live session with this id if it belongs to this principal, else None."""
        text = token.decode("latin-1")
        session = self._known.get(text)
        claims = session.claims if session else self._sealer.open(text, SessionClaims)
        if claims is None or claims.principal_id != principal_id:
            return None
        if claims.sid in self._ended or claims.expires < time():
            return None
        if session is None:
            return self._add(_session(text, claims))
        self._known.move_to_end(text)
        return session

    def set_capabilities(self, session: Session, capabilities: Any) -> None:
        """Set the client's capabilities of a session that was created before its handshake."""
        self.update(session, "declared", msgspec.json.encode(_bounded(capabilities)).decode())

    def add_task(self, session: Session, task: str, handle: str) -> None:
        """Add a task whose status notifications are sent on the session's streams."""
        self.update(session, "task", task, handle.encode())

    def end(self, session: Session) -> None:
        """End a session here and in every other replica."""
        self.update(session, "ended")

    def update(self, session: Session, what: str, about: str = "", body: bytes = b"") -> None:
        """Change a session here, and publish the change to the other replicas."""
        message = SessionMessage(session=session.sid, what=what, about=about, body=body)
        if what in _FORWARDED and self._forward(message):
            return  # this replica waited for the message, so no other replica needs it
        if what != "cancelled":
            self._apply(session, message)
        # A cancellation is applied when this replica receives it from the bus. If it were applied
        # twice, it could cancel a later call with the same request id.
        self._publish(message)

    def receive(self, message: SessionMessage) -> None:
        """Apply a message that this or another replica published."""
        session = self._by_sid.get(message.session)
        if message.what in _FORWARDED:
            self._forward(message)
        elif session is not None:
            self._apply(session, message)
        else:
            self._remember(message)

    def _apply(self, session: Session, message: SessionMessage) -> None:
        if message.what == "ended":
            # The session has ended, so the client does not receive the answers to these requests.
            for request_id in tuple(session.in_flight):
                self.on_cancelled(session, request_id)
            self._known.pop(session.token, None)
            self._by_sid.pop(session.sid, None)
            self._mark_ended(session.sid)
        elif message.what == "cancelled":
            self.on_cancelled(session, message.about.encode())
        else:
            _change(session, message)

    def _forward(self, message: SessionMessage) -> bool:
        """Pass a message to its receiver; return whether this replica was waiting for it."""
        receiver = self.on_response if message.what == "response" else self.on_message
        return receiver(message.session, message.body)

    def _add(self, session: Session) -> Session:
        if len(self._known) >= MAX_KNOWN:
            _, oldest = self._known.popitem(last=False)
            self._by_sid.pop(oldest.sid, None)
        self._known[session.token] = self._by_sid[session.sid] = session
        for message in self._pending.pop(session.sid, ()):
            self._apply(session, message)
        return session

    def _remember(self, message: SessionMessage) -> None:
        """Store a message about a session that this replica may serve later."""
        if message.what == "ended":
            self._pending.pop(message.session, None)
            self._mark_ended(message.session)
            return
        if message.what == "cancelled" or message.session in self._ended:
            return
        if len(self._pending) >= MAX_KNOWN:
            self._pending.popitem(last=False)
        messages = self._pending.setdefault(message.session, [])
        if len(messages) < MAX_URIS:
            messages.append(message)

    def _mark_ended(self, sid: str) -> None:
        if sid in self._ended:
            return
        if len(self._ended) >= MAX_ENDED:
            self._ended.popitem(last=False)
        self._ended[sid] = None
        self.on_ended(sid)


def _change(session: Session, message: SessionMessage) -> None:
    """Apply a setting that the session's client changed."""
    if message.what == "subscribed" and len(session.uris) < MAX_URIS:
        session.uris.add(message.about)
    elif message.what == "unsubscribed":
        session.uris.discard(message.about)
    elif message.what == "task":
        if len(session.tasks) >= MAX_TASKS:
            del session.tasks[next(iter(session.tasks))]
        session.tasks[message.about] = message.body.decode()
    elif message.what == "level":
        session.level = message.about
    elif message.what == "declared":
        session.capabilities = message.about
        session.declared = msgspec.json.decode(message.about)


def _session(token: str, claims: SessionClaims) -> Session:
    raw = claims.capabilities
    return Session(token, claims, raw, msgspec.json.decode(raw))


def _bounded(capabilities: Any) -> dict[str, Any]:
    """Return the capabilities that servers use; empty if they exceed `LARGEST_CAPABILITIES`."""
    if not isinstance(capabilities, dict):
        return {}
    used = {name: capabilities[name] for name in _REQUESTABLE if name in capabilities}
    return used if len(msgspec.json.encode(used)) <= LARGEST_CAPABILITIES else {}


def capabilities_of(session: Session | None) -> str:
    """Return the capabilities that calls of this session declare, as raw JSON."""
    return session.capabilities if session is not None else NOTHING
