"""An object store of the bus: larger things by name, which the server forgets after a while.

An object is one message under its name: it is read whole or not at all, and what is written later
replaces it, so that nobody needs a right to purge.
"""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Self

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus

# Fits what a message may be, also in the form in which the server hands out a stored one.
LARGEST = 5 << 20
_REMOVED = {"KV-Operation": "DEL"}
_BODY, _WRITTEN = "C", "M"  # an object, and the moment it was written, which can be read alone


class Objects:
    """One declared object store."""

    def __init__(self, name: str, stream: JetStreamContext) -> None:
        self._name = name
        self._stream = stream

    @classmethod
    async def opened(cls, bus: Bus, name: str) -> Self:
        """Return the store of that name; whether it is there shows when it is used."""
        return cls(name, bus.client.jetstream())

    async def put(self, name: str, value: bytes) -> None:
        """Write, whatever is there. Raises `BusDownError`, also where there is no room."""
        await self._publish(_BODY, name, value)
        await self._publish(_WRITTEN, name, datetime.now(UTC).isoformat().encode())

    async def get(self, name: str) -> bytes | None:
        """What is there; None where nothing is. Raises `BusDownError`."""
        return await self._newest(_BODY, name)

    async def delete(self, name: str) -> None:
        """Remove what is there, if anything is. Raises `BusDownError`."""
        if await self._newest(_WRITTEN, name) is not None:
            await self._publish(_WRITTEN, name, b"", **_REMOVED)
            await self._publish(_BODY, name, b"", **_REMOVED)

    async def written(self, name: str) -> str:
        """When it was written, in ISO 8601; empty where nothing is there. Raises `BusDownError`."""
        return (await self._newest(_WRITTEN, name) or b"").decode()

    def _subject(self, part: str, name: str) -> str:
        return f"$O.{self._name}.{part}.{urlsafe_b64encode(name.encode()).decode()}"

    async def _publish(self, part: str, name: str, value: bytes, **headers: str) -> None:
        try:
            await self._stream.publish(self._subject(part, name), value, headers=headers or None)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"Nothing can be kept in {self._name} now: {error}") from error

    async def _newest(self, part: str, name: str) -> bytes | None:
        try:
            subject = self._subject(part, name)
            found = await self._stream.get_last_msg(f"OBJ_{self._name}", subject)
        except NotFoundError:
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"{self._name} cannot be read now: {error}") from error
        return None if "KV-Operation" in (found.headers or {}) else found.data or b""
