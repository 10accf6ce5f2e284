"""Who asks, and what surrounds one HTTP request: the key, the session, the way back."""

from collections.abc import Callable, MutableMapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from toolbus_common.access.anonymous import KEY_DIGEST, is_anonymous, key_digest_in
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.config import Patterns
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import NO_TERMS, Terms
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import Send


class Caller(Struct, frozen=True):
    """Whoever holds the key. `server` is set on an endpoint of one server.

    `bounds` are the key's within `restriction`, which is what the request itself asked for; `terms`
    hold how it sees tools, and its caps on programs. `holder` is there for an access token: what
    stays the same when the token is renewed.
    """

    key_digest: str
    name: str
    bounds: EffectiveGrants
    server: str
    restriction: tuple[Patterns, ...] = ()
    terms: Terms = NO_TERMS
    holder: str = ""

    @property
    def principal_id(self) -> str:
        """Whose sessions, tasks and states are whose."""
        return self.holder or self.key_digest

    @property
    def account(self) -> str:
        """Whose a session is: all anonymous callers are one, and each session's id is its key."""
        return KEY_DIGEST if is_anonymous(self.key_digest) else self.principal_id

    @property
    def mode(self) -> Mode:
        """How it sees tools."""
        return self.terms.mode


class Visit(Struct, frozen=True):
    """One HTTP request by a caller; `session` only in the families with a handshake.

    With `tell` it is one message of several: what a call says goes there, and its answer is plain.
    """

    caller: Caller
    headers: Headers
    scope: MutableMapping[str, Any]
    send: Send
    session: Session | None = None
    tell: Callable[[bytes], None] | None = None

    def within(self, session: Session) -> "Visit":
        """Return the same in a session, which tells anonymous callers apart."""
        caller = self.caller
        if is_anonymous(caller.key_digest):
            caller = replace(caller, key_digest=key_digest_in(session.sid))
        return replace(self, caller=caller, session=session)

    @property
    def takes_events(self) -> bool:
        """Whether the answer may be an event stream."""
        return b"text/event-stream" in self.headers.get(b"accept", b"")
