"""An object store of the bus: larger things by name, which the server forgets after a while."""

from typing import Self

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo, ObjectMeta, ObjectMetaOptions
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from toolbus_common.bus import Bus
from toolbus_common.errors import BusDownError

# An object is one message, so that it is read whole or not at all; fits what a message may be,
# also in the form in which the server hands out a stored one.
LARGEST = 5 << 20


class Objects:
    """One declared object store."""

    def __init__(self, name: str, stream: JetStreamContext, store: ObjectStore) -> None:
        self._name = name
        self._stream = stream
        self._store = store

    @classmethod
    async def opened(cls, bus: Bus, name: str) -> Self:
        """The store of that name. Raises `BusDownError` when it is not there."""
        stream = bus.client.jetstream()
        try:
            return cls(name, stream, await stream.object_store(name))
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"The object store {name} cannot be opened: {error}") from error

    async def put(self, name: str, value: bytes) -> None:
        """Write, whatever is there. Raises `BusDownError`, also where there is no room."""
        options = ObjectMetaOptions(max_chunk_size=min(LARGEST, max(len(value), 1)))
        try:
            await self._store.put(name, value, ObjectMeta(name=name, options=options))
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"Nothing can be kept in {self._name} now: {error}") from error

    async def get(self, name: str) -> bytes | None:
        """What is there; None where nothing is. Raises `BusDownError`."""
        info = await self._info(name)
        if info is None:
            return None
        try:
            chunk = f"$O.{self._name}.C.{info.nuid}"
            return (await self._stream.get_last_msg(f"OBJ_{self._name}", chunk)).data
        except NotFoundError:
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"{self._name} cannot be read now: {error}") from error

    async def delete(self, name: str) -> None:
        """Remove what is there, if anything is. Raises `BusDownError`."""
        try:
            await self._store.delete(name)
        except NotFoundError:
            return
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"Nothing can be removed from {self._name} now: {error}") from error

    async def written(self, name: str) -> str:
        """When it was written, in ISO 8601; empty where nothing is there. Raises `BusDownError`."""
        info = await self._info(name)
        return info.mtime or "" if info is not None else ""

    async def _info(self, name: str) -> ObjectInfo | None:
        try:
            return await self._store.get_info(name)
        except NotFoundError:
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"{self._name} cannot be read now: {error}") from error
