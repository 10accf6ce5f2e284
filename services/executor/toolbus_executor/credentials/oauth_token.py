"""Access token of one user for one server. It is cached, and renewed before it expires."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import monotonic, time
from typing import Any

from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.errors import ToolbusError, UpstreamRefusedError
from toolbus_executor.credentials.dpop import UNAUTHORIZED, Prover, prover_of
from toolbus_executor.transport.http1 import Head

RequestToken = Callable[[UpstreamTokenQuery], Awaitable[UpstreamTokenReply]]

REDACTED = b"(secret)"
MIN_SECONDS = 5.0  # a token that expires sooner is not used
EARLY_SECONDS = 60.0  # the next token is requested this long before the expiry
MAX_SECONDS = 5.0  # after this time oauth is queried again, so that a revocation takes effect
MAX_CHALLENGE = 4096
FORBIDDEN = 403
REFUSED = -32001
_BEARER, _BOUND, _ENDS = b"Authorization: Bearer ", b"Authorization: DPoP ", b"\r\n"


class ConsentRequiredError(UpstreamRefusedError):
    """No token exists. `link` is the URL of the consent page; it can be empty."""

    def __init__(self, reason: str, *, link: str = "", **data: Any) -> None:
        super().__init__(reason, **{"upstream_code": REFUSED, "sent": False, **data})
        self.link = link


class Bearer:
    """The token of a user for a server. An empty user means the shared token.

    If `listing` is set, a token of any user is used. `claims` identify the caller in a token that
    Toolbus issues itself. `prover` is set while the token is bound to a key.
    """

    def __init__(
        self,
        server: str,
        user: str,
        request: RequestToken,
        *,
        listing: bool = False,
        claims: str = "",
    ) -> None:
        self._server = server
        self.user = user
        self._request = request
        self._listing = listing
        self._claims = claims
        self.prover: Prover | None = None
        self._line = b""
        self._renew_at = 0.0  # on the monotonic clock
        self._valid_until = 0.0
        self._rejection_lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._reply = UpstreamTokenReply()
        self._recent_tokens: tuple[bytes, ...] = ()  # the last tokens, redacted in replies

    @property
    def token(self) -> str:
        """The cached token; empty if no valid token is cached."""
        return _token_in(self._line).decode("ascii") if monotonic() < self._valid_until else ""

    def struck(self, text: bytes) -> bytes:
        """Return the text with the last two tokens redacted."""
        for token in self._recent_tokens:
            if token in text:
                text = text.replace(token, REDACTED)
        return text

    def now(self) -> bytes:
        """Return the cached header line; empty if no valid token is cached.

        If the token is due for renewal, the renewal starts in the background.
        """
        at = monotonic()
        if at < self._renew_at:
            return self._line
        if at >= self._valid_until:
            return b""
        self._renew()
        return self._line

    async def line(self) -> bytes:
        """Return the header line.

        Request a token if none is cached; return empty if there is no token.
        """
        line = self.now()
        if not line:
            await asyncio.shield(self._renew())
            line = self._line if monotonic() < self._valid_until else b""
        return line

    async def needed(self, patience: float = 0.0, pause: float = 0.5) -> None:
        """Wait up to `patience` seconds for a token; check every `pause` seconds.

        Raises:
            ConsentRequiredError: there is still no token.

        """
        until = monotonic() + patience
        while not await self.line():
            if monotonic() + pause > until:
                raise self._consent_required()
            await asyncio.sleep(pause)

    def refusal(self, head: Head) -> str | None:
        """Return the challenge of a response that rejected the token.

        Return None if the response did not reject it, or if another token would be rejected as
        well.
        """
        if head.status not in (UNAUTHORIZED, FORBIDDEN) or head.is_stream:
            return None
        reply = head.headers.get(b"www-authenticate", b"")[:MAX_CHALLENGE].decode("latin-1")
        if head.status == FORBIDDEN and "insufficient_scope" not in reply:
            return None
        return reply or "Bearer"

    async def another(self, refused: bytes, challenge: str) -> bytes:
        """Return the header line of another token after the server rejected the line `refused`.

        Raises:
            ConsentRequiredError: there is no other token.

        """
        async with self._rejection_lock:
            if self._line not in (b"", refused) and monotonic() < self._valid_until:
                return self._line  # another rejected call has already renewed the token
            self._renew_at = self._valid_until = 0.0
            if self._renewal is not None and not self._renewal.done():
                await asyncio.shield(self._renewal)
            await asyncio.shield(self._renew(challenge, _digest(refused)))
            if monotonic() >= self._valid_until or self._line == refused:
                self._renew_at = self._valid_until = 0.0
                raise self._consent_required()
            return self._line

    def _renew(self, challenge: str = "", refused: str = "") -> "asyncio.Task[None]":
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._fetch(challenge, refused))
            self._renewal.add_done_callback(_retrieve_error)
        return self._renewal

    async def _fetch(self, challenge: str, refused: str) -> None:
        query = UpstreamTokenQuery(
            server=self._server,
            user=self.user,
            listing=self._listing,
            challenge=challenge,
            rejected=refused,
            claims=self._claims,
        )
        try:
            reply = await self._request(query)
        except ToolbusError as error:
            if monotonic() < self._valid_until:
                self._renew_at = min(monotonic() + MIN_SECONDS, self._valid_until)
                return  # the cached token can be used until it expires
            reply = UpstreamTokenReply(reason=f"{error.reason} Retry shortly.")
        self._store(reply)

    def _store(self, reply: UpstreamTokenReply) -> None:
        self._reply = reply
        lasts = reply.ends - time() - MIN_SECONDS
        if not reply.token or lasts <= 0:
            self._line, self.prover = b"", None
            self._renew_at = self._valid_until = 0.0
            return
        scheme = _BOUND if reply.key else _BEARER
        self._line = b"%b%b%b" % (scheme, reply.token.encode("ascii"), _ENDS)
        token = reply.token.encode("ascii")
        if token not in self._recent_tokens:
            self._recent_tokens = (token, *self._recent_tokens[:1])
        self.prover = prover_of(self.prover, reply.token, reply.key)
        early = random.uniform(1.0, 1.5) * min(EARLY_SECONDS, lasts / 4)  # noqa: S311
        self._valid_until = monotonic() + lasts
        self._renew_at = monotonic() + min(lasts - early, MAX_SECONDS)

    def _consent_required(self) -> ConsentRequiredError:
        reply = self._reply
        reason = reply.reason or f"No account is connected to {self._server!r} yet."
        return ConsentRequiredError(reason, link=reply.link)


def with_header(request: bytes, line: bytes) -> bytes:
    """Return the request with an additional header line, inserted after the request line."""
    first, end, rest = request.partition(b"\r\n")
    return b"%b%b%b%b" % (first, end, line, rest)


def _digest(line: bytes) -> str:
    """Return the SHA-256 digest of the token in a header line; empty if the line is empty."""
    token = _token_in(line)
    return sha256(token).hexdigest() if token else ""


def _token_in(line: bytes) -> bytes:
    return line.removeprefix(_BEARER).removeprefix(_BOUND).removesuffix(_ENDS)


def _retrieve_error(task: "asyncio.Task[None]") -> None:
    """Mark the task's error as retrieved. The callers that await the task handle the error."""
    if not task.cancelled():
        task.exception()
