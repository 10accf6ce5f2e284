"""Object stores: larger values by name, which expire.

An object is a single message under its name. It is read completely or not at all. A later write
replaces it, so that no service needs the permission to purge.
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

# An object of this size fits into one message, even in base64, the form in which the server returns
# stored messages.
LARGEST = 5 << 20
_REMOVED = {"KV-Operation": "DEL"}
_BODY, _WRITTEN = "C", "M"  # an object, and its write time as a separate message


class Objects:
    """One object store: reads, writes and deletes whole objects."""

    def __init__(self, name: str, stream: JetStreamContext) -> None:
        self._name = name
        self._stream = stream

    @classmethod
    async def opened(cls, bus: Bus, name: str) -> Self:
        """Return the store with this name. A missing store raises an error only when it is used."""
        return cls(name, bus.client.jetstream())

    async def put(self, name: str, value: bytes) -> None:
        """Write an object unconditionally. Raises `BusDownError`, also if the store is full."""
        await self._publish(_BODY, name, value)
        await self._publish(_WRITTEN, name, datetime.now(UTC).isoformat().encode())

    async def get(self, name: str) -> bytes | None:
        """Return the object; None if it does not exist. Raises `BusDownError`."""
        return await self._newest(_BODY, name)

    async def delete(self, name: str) -> None:
        """Delete an object if it exists. Raises `BusDownError`."""
        if await self._newest(_WRITTEN, name) is not None:
            await self._publish(_WRITTEN, name, b"", **_REMOVED)
            await self._publish(_BODY, name, b"", **_REMOVED)

    async def written(self, name: str) -> str:
        """Return the write time of an object in ISO 8601; empty if it does not exist.

        Raises `BusDownError`.
        """
        return (await self._newest(_WRITTEN, name) or b"").decode()

    def _subject(self, part: str, name: str) -> str:
        return f"$O.{self._name}.{part}.{urlsafe_b64encode(name.encode()).decode()}"

    async def _publish(self, part: str, name: str, value: bytes, **headers: str) -> None:
        try:
            await self._stream.publish(self._subject(part, name), value, headers=headers or None)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(
                f"The object store '{self._name}' cannot be written: {error}; retry."
            ) from error

    async def _newest(self, part: str, name: str) -> bytes | None:
        try:
            subject = self._subject(part, name)
            found = await self._stream.get_last_msg(f"OBJ_{self._name}", subject)
        except NotFoundError:
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(
                f"The object store '{self._name}' cannot be read: {error}; retry."
            ) from error
        return None if "KV-Operation" in (found.headers or {}) else found.data or b""
