"""One token for one server: at hand while it is good, asked for again in time, by one for all."""

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

Ask = Callable[[UpstreamTokenQuery], Awaitable[UpstreamTokenReply]]

STRUCK = b"(secret)"
LEAST_SECONDS = 5.0  # what ends sooner is not used
EARLY_SECONDS = 60.0  # before its end the next one is asked for, while calls go on
LONGEST_SECONDS = 5.0  # then oauth is asked again, so that what was revoked is felt
LONGEST_CHALLENGE = 4096
FORBIDDEN = 403
REFUSED = -32001
_BEARER, _BOUND, _ENDS = b"Authorization: Bearer ", b"Authorization: DPoP ", b"\r\n"


class UnconsentedError(UpstreamRefusedError):
    """There is no token; `link` leads to the page where one is got, and is empty where none is."""

    def __init__(self, reason: str, *, link: str = "", **data: Any) -> None:
        super().__init__(reason, **{"upstream_code": REFUSED, "sent": False, **data})
        self.link = link


class Bearer:
    """The token of a user (empty: the shared one) for a server; `listing`: anybody's will do.

    `prover` is there while the token at hand is bound to a key.
    """

    def __init__(self, server: str, user: str, ask: Ask, *, listing: bool = False) -> None:
        self._server = server
        self.user = user
        self._ask = ask
        self._listing = listing
        self.prover: Prover | None = None
        self._line = b""
        self._again_at = 0.0  # on the monotonic clock
        self._good_until = 0.0
        self._turn = asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        self._told = UpstreamTokenReply()
        self._shown: tuple[bytes, ...] = ()  # the last tokens, as they are struck from answers

    @property
    def token(self) -> str:
        """The token that is at hand; empty where none is."""
        return _token_in(self._line).decode("ascii") if monotonic() < self._good_until else ""

    def struck(self, text: bytes) -> bytes:
        """Return a text without the token."""
        for token in self._shown:
            if token in text:
                text = text.replace(token, STRUCK)
        return text

    def now(self) -> bytes:
        """The header that is at hand; empty where none is."""
        at = monotonic()
        if at < self._again_at:
            return self._line
        if at >= self._good_until:
            return b""
        self._renew()
        return self._line

    async def line(self) -> bytes:
        """The header, asked for where none is at hand; empty where there is none."""
        line = self.now()
        if not line:
            await asyncio.shield(self._renew())
            line = self._line if monotonic() < self._good_until else b""
        return line

    async def needed(self, patience: float = 0.0, pause: float = 0.5) -> None:
        """See that there is a token, waiting so long for a person. Raises `UnconsentedError`."""
        until = monotonic() + patience
        while not await self.line():
            if monotonic() + pause > until:
                raise self._unconsented()
            await asyncio.sleep(pause)

    def refusal(self, head: Head) -> str | None:
        """What a refusal says that another token may mend; None for any other answer."""
        if head.status not in (UNAUTHORIZED, FORBIDDEN) or head.is_stream:
            return None
        told = head.headers.get(b"www-authenticate", b"")[:LONGEST_CHALLENGE].decode("latin-1")
        if head.status == FORBIDDEN and "insufficient_scope" not in told:
            return None
        return told or "Bearer"

    async def another(self, refused: bytes, challenge: str) -> bytes:
        """The next header, this one having been refused. Raises `UnconsentedError`."""
        async with self._turn:
            if self._line not in (b"", refused) and monotonic() < self._good_until:
                return self._line  # another call was refused before, and has asked
            self._again_at = self._good_until = 0.0
            if self._asking is not None and not self._asking.done():
                await asyncio.shield(self._asking)
            await asyncio.shield(self._renew(challenge, _digest(refused)))
            if monotonic() >= self._good_until or self._line == refused:
                self._again_at = self._good_until = 0.0
                raise self._unconsented()
            return self._line

    def _renew(self, challenge: str = "", refused: str = "") -> "asyncio.Task[None]":
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._asked(challenge, refused))
            self._asking.add_done_callback(_heard)
        return self._asking

    async def _asked(self, challenge: str, refused: str) -> None:
        question = UpstreamTokenQuery(
            server=self._server,
            user=self.user,
            listing=self._listing,
            challenge=challenge,
            refused=refused,
        )
        try:
            told = await self._ask(question)
        except ToolbusError as error:
            if monotonic() < self._good_until:
                self._again_at = min(monotonic() + LEAST_SECONDS, self._good_until)
                return  # what is at hand is good until its end
            told = UpstreamTokenReply(reason=f"{error.reason} Retry shortly.")
        self._take(told)

    def _take(self, told: UpstreamTokenReply) -> None:
        self._told = told
        lasts = told.ends - time() - LEAST_SECONDS
        if not told.token or lasts <= 0:
            self._line, self.prover = b"", None
            self._again_at = self._good_until = 0.0
            return
        scheme = _BOUND if told.key else _BEARER
        self._line = b"%b%b%b" % (scheme, told.token.encode("ascii"), _ENDS)
        token = told.token.encode("ascii")
        if token not in self._shown:
            self._shown = (token, *self._shown[:1])
        self.prover = prover_of(self.prover, told.token, told.key)
        early = random.uniform(1.0, 1.5) * min(EARLY_SECONDS, lasts / 4)  # noqa: S311
        self._good_until = monotonic() + lasts
        self._again_at = monotonic() + min(lasts - early, LONGEST_SECONDS)

    def _unconsented(self) -> UnconsentedError:
        told = self._told
        reason = told.reason or f"Nobody has let Toolbus act for them at {self._server} yet."
        return UnconsentedError(reason, link=told.link)


def authorized(request: bytes, line: bytes) -> bytes:
    """The request with one more header, after its first line."""
    first, end, rest = request.partition(b"\r\n")
    return b"%b%b%b%b" % (first, end, line, rest)


def _digest(line: bytes) -> str:
    """What stands for the token of a header."""
    token = _token_in(line)
    return sha256(token).hexdigest() if token else ""


def _token_in(line: bytes) -> bytes:
    return line.removeprefix(_BEARER).removeprefix(_BOUND).removesuffix(_ENDS)


def _heard(task: "asyncio.Task[None]") -> None:
    """An error is whoever's who waited; nobody may have."""
    if not task.cancelled():
        task.exception()
