"""Handshake-family sessions, sealed into their ids so that any replica can serve them."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec

from toolbus_common.contracts import NOTHING, SessionMessage
from toolbus_ingress.sessions.sealed_claims import Seal, SessionClaims

LIFETIME = 24 * 3600.0  # seconds
MOST_KNOWN = 20_000
MOST_ENDED = 100_000  # of the ends remembered; an id that outlives its own still needs its key
LARGEST_CAPABILITIES = 1024  # bytes; a session's id travels in a header
MOST_URIS = 1000
MOST_TASKS = 256  # of a session, whose news its streams are told
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

_PASSED_ON = ("response", "message")  # kept by nobody: whoever waits for it hears it
_ASKABLE = ("elicitation", "sampling", "roots", "tasks")


@dataclass(slots=True)
class Session:
    """One session as this replica knows it. `in_flight`: raw request ids and their calls."""

    token: str
    claims: SessionClaims
    capabilities: str  # what the client declared, as raw JSON
    declared: dict[str, Any]
    level: str = ""
    uris: set[str] = field(default_factory=set)
    tasks: dict[str, str] = field(default_factory=dict)  # handles by what servers' news call them
    in_flight: dict[bytes, str] = field(default_factory=dict)

    @property
    def sid(self) -> str:
        """Its name on the bus."""
        return self.claims.sid

    @property
    def resumable(self) -> bool:
        """Whether its revision has events with ids, and clients that come back with them."""
        return self.claims.version >= "2025-03-26"

    @property
    def polls(self) -> bool:
        """Whether its client expects an id from the start, and connections that end early."""
        return self.claims.version >= "2025-11-25"

    def can(self, *path: str) -> bool:
        """Whether the client declared a capability, as `elicitation`, `url`."""
        found: Any = self.declared
        for step in path:
            if not isinstance(found, dict) or step not in found:
                return False
            found = found[step]
        return found is not None and found is not False


class Sessions:
    """Begins, recognises and ends sessions, and shares what replicas must know of them.

    `say` tells the other replicas. What this one hears again from itself changes nothing.
    """

    def __init__(self, seal: Seal, say: Callable[[SessionMessage], None]) -> None:
        self._seal = seal
        self._say = say
        self._known: OrderedDict[str, Session] = OrderedDict()  # the longest unused first
        self._by_sid: dict[str, Session] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._told: OrderedDict[str, list[SessionMessage]] = OrderedDict()  # of those not yet seen
        self.on_ended: Callable[[str], None] = lambda _sid: None
        self.on_response: Callable[[str, bytes], bool] = lambda _sid, _body: False
        self.on_message: Callable[[str, bytes], bool] = lambda _sid, _body: False
        self.on_cancelled: Callable[[Session, bytes], None] = lambda _session, _request: None
        self.on_roots: Callable[[str], None] = lambda _sid: None

    def begin(self, key_digest: str, version: str, capabilities: Any) -> Session:
        """A new session for a principal."""
        declared = _bounded(capabilities)
        claims = SessionClaims(
            secrets.token_hex(8), key_digest, version, msgspec.json.encode(declared).decode(),
            time() + LIFETIME,
        )  # fmt: skip
        return self._keep(_session(self._seal.close(claims), claims))

    def find(self, token: bytes, key_digest: str) -> Session | None:
        """The live session of this id and principal; to anybody else it does not exist."""
        text = token.decode("latin-1")
        session = self._known.get(text)
        claims = session.claims if session else self._seal.open(text, SessionClaims)
        if claims is None or claims.principal_id != key_digest:
            return None
        if claims.sid in self._ended or claims.expires < time():
            return None
        if session is None:
            return self._keep(_session(text, claims))
        self._known.move_to_end(text)
        return session

    def declare(self, session: Session, capabilities: Any) -> None:
        """Say what a client can be asked, where its session is older than its handshake."""
        self.tell(session, "declared", msgspec.json.encode(_bounded(capabilities)).decode())

    def begun(self, session: Session, task: str, handle: str) -> None:
        """A session's call became a task, of which its streams are to be told."""
        self.tell(session, "task", task, handle.encode())

    def end(self, session: Session) -> None:
        """End it, here and everywhere."""
        self.tell(session, "ended")

    def tell(self, session: Session, what: str, about: str = "", body: bytes = b"") -> None:
        """Change a session here, and let the other replicas know."""
        said = SessionMessage(session=session.sid, what=what, about=about, body=body)
        if what in _PASSED_ON and self._pass_on(said):
            return  # whoever waits for it is here
        if what != "cancelled":
            self._take(session, said)
        self._say(said)  # and hear it: to be cancelled twice could meet a later call of that id

    def hear(self, said: SessionMessage) -> None:
        """Another replica, or this one, said something of a session."""
        session = self._by_sid.get(said.session)
        if said.what in _PASSED_ON:
            self._pass_on(said)
        elif session is not None:
            self._take(session, said)
        else:
            self._remember(said)

    def _take(self, session: Session, said: SessionMessage) -> None:
        if said.what == "ended":
            for request_id in tuple(session.in_flight):  # nobody is left to hear their answers
                self.on_cancelled(session, request_id)
            self._known.pop(session.token, None)
            self._by_sid.pop(session.sid, None)
            self._bury(session.sid)
        elif said.what == "cancelled":
            self.on_cancelled(session, said.about.encode())
        else:
            _change(session, said)

    def _pass_on(self, said: SessionMessage) -> bool:
        """Whether it found whoever waits for it in this replica."""
        heard = self.on_response if said.what == "response" else self.on_message
        return heard(said.session, said.body)

    def _keep(self, session: Session) -> Session:
        if len(self._known) >= MOST_KNOWN:
            _, oldest = self._known.popitem(last=False)
            self._by_sid.pop(oldest.sid, None)
        self._known[session.token] = self._by_sid[session.sid] = session
        for said in self._told.pop(session.sid, ()):
            self._take(session, said)
        return session

    def _remember(self, said: SessionMessage) -> None:
        """Keep what concerns a session that may come here later."""
        if said.what == "ended":
            self._told.pop(said.session, None)
            self._bury(said.session)
            return
        if said.what == "cancelled" or said.session in self._ended:
            return
        if len(self._told) >= MOST_KNOWN:
            self._told.popitem(last=False)
        told = self._told.setdefault(said.session, [])
        if len(told) < MOST_URIS:
            told.append(said)

    def _bury(self, sid: str) -> None:
        if sid in self._ended:
            return
        if len(self._ended) >= MOST_ENDED:
            self._ended.popitem(last=False)
        self._ended[sid] = None
        self.on_ended(sid)


def _change(session: Session, said: SessionMessage) -> None:
    """What a session's client has set."""
    if said.what == "subscribed" and len(session.uris) < MOST_URIS:
        session.uris.add(said.about)
    elif said.what == "unsubscribed":
        session.uris.discard(said.about)
    elif said.what == "task":
        if len(session.tasks) >= MOST_TASKS:
            del session.tasks[next(iter(session.tasks))]
        session.tasks[said.about] = said.body.decode()
    elif said.what == "level":
        session.level = said.about
    elif said.what == "declared":
        session.capabilities, session.declared = said.about, msgspec.json.decode(said.about)


def _session(token: str, claims: SessionClaims) -> Session:
    raw = claims.capabilities
    return Session(token, claims, raw, msgspec.json.decode(raw))


def _bounded(capabilities: Any) -> dict[str, Any]:
    """What the client can be asked for; the rest says nothing a server needs to know."""
    if not isinstance(capabilities, dict):
        return {}
    kept = {name: capabilities[name] for name in _ASKABLE if name in capabilities}
    return kept if len(msgspec.json.encode(kept)) <= LARGEST_CAPABILITIES else {}


def capabilities_of(session: Session | None) -> str:
    """What calls of this session declare, as raw JSON."""
    return session.capabilities if session is not None else NOTHING
