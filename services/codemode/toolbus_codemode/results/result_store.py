"""Store of large program results: for an hour, under a handle that only the caller's key can use.

A key has a fixed number of slots, and the newest result replaces the oldest. Object names depend
only on the key and the slot, so that the limit applies to all replicas together. A result is
encrypted with a key derived from the key digest, which only the caller's requests contain. The
handle contains the nonce. Neither a reader of the store nor another caller can decrypt a result.
"""

import os
import re
from asyncio import gather
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from toolbus_codemode.sandbox.program import Failure, ToolOutcome
from toolbus_common.crypto.aead import NONCE_BYTES, Aead, DecryptionError, derived_key
from toolbus_common.errors import ToolbusError

SLOTS = 16  # results of one key at a time
LARGEST = 4 << 20  # bytes of one result
_HANDLE = re.compile(r"r([0-9a-f])([A-Za-z0-9_-]{16})")
_GONE = (
    "Unknown result: a handle is valid for an hour, for the key that created it, and only the "
    f"{SLOTS} newest results of a key are stored. Run the program that created it again."
)


class Store(Protocol):
    """Object store; old objects expire."""

    async def put(self, name: str, value: bytes) -> None:
        """Write or replace an object. Raises `ToolbusError`."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Return an object, or None if it does not exist. Raises `ToolbusError`."""
        ...

    async def written(self, name: str) -> str:
        """Return the object's time of writing as sortable text; empty if it does not exist."""
        ...


@dataclass(slots=True)
class Results:
    """Store of results; `open_store` opens the bucket at the first use."""

    open_store: Callable[[], Awaitable[Store]]
    _store: Store | None = field(default=None)

    async def keep(self, key_digest: str, value: Any) -> str:
        """Store a result and return its handle. Raises `ToolbusError`."""
        body = msgspec.json.encode(value)
        store = await self._opened()
        position = await self._free_slot(store, key_digest)
        name = _name(key_digest, position)
        sealed = _aead(key_digest).seal(body, name.encode())
        nonce, stored = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        await store.put(name, stored)
        return f"r{position:x}{urlsafe_b64encode(nonce).decode()}"

    async def read(self, key_digest: str, handle: str) -> bytes | None:
        """Return the result as JSON, or None if the handle is not valid for this key."""
        found = _HANDLE.fullmatch(handle)
        if found is None:
            return None
        name = _name(key_digest, int(found[1], 16))
        stored = await (await self._opened()).get(name)
        try:
            sealed = urlsafe_b64decode(found[2]) + (stored or b"")
            return _aead(key_digest).open(sealed, name.encode())
        except DecryptionError:
            return None

    async def recalled(self, key_digest: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Return the stored result, or a failure, as the outcome of `results.read`."""
        handle = arguments.get("handle")
        try:
            body = await self.read(key_digest, handle) if isinstance(handle, str) else None
        except ToolbusError as error:
            return ToolOutcome(failure=Failure(error.code, error.reason))
        if body is None:
            return ToolOutcome(failure=Failure("unknown_result", _GONE))
        return ToolOutcome(msgspec.json.decode(body))

    async def _free_slot(self, store: Store, key_digest: str) -> int:
        """Return a free slot, else the oldest slot.

        The free slot is random, because replicas choose concurrently.
        """
        written = await gather(*(store.written(_name(key_digest, each)) for each in range(SLOTS)))
        oldest = sorted(range(SLOTS), key=lambda each: written[each])
        free = [each for each in oldest if not written[each]]
        return free[os.urandom(1)[0] % len(free)] if free else oldest[0]

    async def _opened(self) -> Store:
        if self._store is None:
            self._store = await self.open_store()
        return self._store


def _name(key_digest: str, position: int) -> str:
    """Return the object name of a key's slot, from which the key cannot be derived."""
    return f"{sha256(b'result of ' + key_digest.encode()).hexdigest()[:32]}-{position:x}"


def _aead(key_digest: str) -> Aead:
    return Aead(derived_key(key_digest.encode(), b"toolbus result"))
