"""The context of one HTTP request: its caller, its session, and the form of the response."""

from collections.abc import Callable, MutableMapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from toolbus_common.access.anonymous import KEY_DIGEST, is_anonymous, key_digest_in
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.config import Patterns
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import NO_OPTIONS, CodeModeOptions
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import Send


class Caller(Struct, frozen=True):
    """The holder of a credential. `server` is set on an endpoint of one server.

    `grants` are the grants of the key, limited by `restrictions`, which the request sets.
    `code_mode_options` are the request's mode of listing tools and its limits on programs. `holder`
    is set for an access token; it stays the same when the token is renewed.
    """

    key_digest: str
    name: str
    grants: EffectiveGrants
    server: str
    restrictions: tuple[Patterns, ...] = ()
    code_mode_options: CodeModeOptions = NO_OPTIONS
    holder: str = ""

    @property
    def principal_id(self) -> str:
        """The owner of the caller's tasks and request states."""
        return self.holder or self.key_digest

    @property
    def session_owner(self) -> str:
        """The owner of the caller's sessions; the same for all anonymous callers.

        An anonymous caller is identified by its session's id alone.
        """
        return KEY_DIGEST if is_anonymous(self.key_digest) else self.principal_id

    @property
    def mode(self) -> Mode:
        """The caller's mode of listing tools."""
        return self.code_mode_options.mode


class RequestContext(Struct, frozen=True):
    """One HTTP request of a caller; `session` is set only for session-based clients.

    `suggested_by` is the verified id of the model request that suggested the call; empty for none.
    `write` is set for a message of a batch. It receives the notifications of the call, and the
    answer is returned instead of streamed.
    """

    caller: Caller
    headers: Headers
    scope: MutableMapping[str, Any]
    send: Send
    session: Session | None = None
    write: Callable[[bytes], None] | None = None
    suggested_by: str = ""

    def within(self, session: Session) -> "RequestContext":
        """Return this context in a session, whose id distinguishes anonymous callers."""
        caller = self.caller
        if is_anonymous(caller.key_digest):
            caller = replace(caller, key_digest=key_digest_in(session.sid))
        return replace(self, caller=caller, session=session)

    @property
    def sid(self) -> str:
        """The id of the session; empty without a session."""
        return self.session.sid if self.session is not None else ""

    @property
    def accepts_events(self) -> bool:
        """Whether the response may be an event stream."""
        return b"text/event-stream" in self.headers.get(b"accept", b"")
