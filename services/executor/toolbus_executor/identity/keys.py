"""The key that says who calls: asked of oauth ahead of time, so that no call waits for it."""

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

Ask = Callable[[], Awaitable[IdentityKeyReply]]

TYPE = "toolbus-identity+jwt"
FRESH_SECONDS = 300.0  # then oauth is asked again, so that the next key is taken in time
AGAIN_SECONDS = 5.0  # where it does not answer
GOOD_SECONDS = 24 * 3600.0  # less than an earlier key is still published


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs claims as `issuer`."""

    issuer: str
    _key: P256Key = field(repr=False)
    _header: str

    def signed(self, claims: dict[str, Any]) -> str:
        """A token of these claims."""
        return self._key.signed(self._header, claims)


async def _nobody() -> IdentityKeyReply:
    raise UnavailableError("No oauth service is asked here.")


class IdentityKeys:
    """The key at hand, once one was needed. While oauth is away, the last is used for a day."""

    def __init__(self, ask: Ask = _nobody) -> None:
        self._ask = ask
        self._signer: Signer | None = None
        self._good_until = 0.0  # on the monotonic clock
        self._why = ""  # there is none
        self._asking: asyncio.Task[None] | None = None
        self._next: asyncio.TimerHandle | None = None

    async def ready(self) -> None:
        """See that there is one. Raises `UnavailableError`."""
        if self._signer is None or monotonic() >= self._good_until:
            await asyncio.shield(self._renew())
        self.now()

    def now(self) -> Signer:
        """Who signs now, waiting for nobody. Raises `UnavailableError`."""
        if self._signer is None or monotonic() >= self._good_until:
            raise UnavailableError(
                "The server is to be told who calls, and there is no key for that yet; retry "
                f"shortly. {self._why}".strip(),
                sent=False,
            )
        return self._signer

    def _renew(self) -> "asyncio.Task[None]":
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._asked())
            # An error is whoever's who waited; nobody may have.
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._asking

    async def _asked(self) -> None:
        pause = AGAIN_SECONDS
        try:
            self._take(await self._ask())
            pause = FRESH_SECONDS
        except ToolbusError as error:
            self._why = error.reason  # what is at hand is good until its end
        except Exception:
            log.exception("identity.key_unread")
        finally:
            self._ask_again_in(pause)

    def _ask_again_in(self, seconds: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(seconds, self._renew)

    def _take(self, told: IdentityKeyReply) -> None:
        header = header_of(typ=TYPE, kid=told.id)
        self._signer = Signer(told.issuer, P256Key.of(told.key), header)
        self._good_until = monotonic() + GOOD_SECONDS
