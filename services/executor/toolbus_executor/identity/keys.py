"""Signing key for caller identity. It is requested from oauth early, so that calls do not wait."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from toolbus_common.contracts import IdentityKeyReply
from toolbus_common.crypto.p256 import P256Key, header_of
from toolbus_common.errors import ToolbusError, UnavailableError

log = logging.getLogger(__name__)

RequestKey = Callable[[], Awaitable[IdentityKeyReply]]

TYPE = "toolbus-identity+jwt"
FRESH_SECONDS = 300.0  # after this time the key is requested again, to follow its rotation
AGAIN_SECONDS = 5.0  # pause after a failed request
GOOD_SECONDS = 24 * 3600.0  # less than the time for which oauth publishes a replaced key


@dataclass(frozen=True, slots=True)
class Signer:
    """Signer of claims for the issuer `issuer`."""

    issuer: str
    _key: P256Key = field(repr=False)
    _header: str

    def signed(self, claims: dict[str, Any]) -> str:
        """Return a signed token (JWT) with these claims."""
        return self._key.signed(self._header, claims)


async def _no_oauth() -> IdentityKeyReply:
    raise UnavailableError(
        "The signing key for caller identity is not available, because this executor has no "
        "connection to oauth. Start oauth, or remove 'identity' from the server."
    )


class IdentityKeys:
    """The signing key, cached on first use.

    While oauth is down, the key is used for up to a day.
    """

    def __init__(self, request: RequestKey = _no_oauth) -> None:
        self._request = request
        self._signer: Signer | None = None
        self._valid_until = 0.0  # on the monotonic clock
        self._why = ""  # reason of the last failed request
        self._renewal: asyncio.Task[None] | None = None
        self._next: asyncio.TimerHandle | None = None

    async def wait_until_ready(self) -> None:
        """Wait until a valid key is cached. Raises `UnavailableError`."""
        if self._signer is None or monotonic() >= self._valid_until:
            await asyncio.shield(self._renew())
        self.now()

    def now(self) -> Signer:
        """Return the cached signer. Raises `UnavailableError`."""
        if self._signer is None or monotonic() >= self._valid_until:
            raise UnavailableError(
                "The key that signs the server's `identity` header is not available yet; retry "
                f"shortly. {self._why}".strip(),
                sent=False,
            )
        return self._signer

    def _renew(self) -> "asyncio.Task[None]":
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._fetch())
            # The callers that await the task handle its error. If no caller waits, the error is
            # marked as retrieved here.
            self._renewal.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._renewal

    async def _fetch(self) -> None:
        pause = AGAIN_SECONDS
        try:
            self._store(await self._request())
            pause = FRESH_SECONDS
        except ToolbusError as error:
            self._why = error.reason  # the cached key can be used until it expires
        except Exception:
            log.exception("identity.key_unreadable")
        finally:
            self._renew_in(pause)

    def _renew_in(self, seconds: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(seconds, self._renew)

    def _store(self, reply: IdentityKeyReply) -> None:
        header = header_of(typ=TYPE, kid=reply.id)
        self._signer = Signer(reply.issuer, P256Key.of(reply.key), header)
        self._valid_until = monotonic() + GOOD_SECONDS
