"""Results too large to tell: kept for an hour for the key whose program made them, under a handle.

A key has few places, and the newest result takes the oldest's: the bounds hold by the names alone,
in every replica. A result is encrypted under a key made of what only its caller's requests bring,
and the handle is the nonce: nobody who reads the store, and no other caller, can read it.

Source: HKDF is RFC 5869, AES-256-GCM is NIST SP 800-38D.
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
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from toolbus_codemode.sandbox.program import Failure, ToolOutcome
from toolbus_common.errors import ToolbusError

PLACES = 16  # results of one key at a time
LARGEST = 4 << 20  # bytes of one
_NONCE = 12
_HANDLE = re.compile(r"r([0-9a-f])([A-Za-z0-9_-]{16})")
_GONE = (
    "There is no such result: a handle lasts an hour, for the key that made it, and a key keeps "
    f"its {PLACES} newest. Run the program that made it again."
)


class Store(Protocol):
    """Objects by name, each with the moment it was written; old ones go by themselves."""

    async def put(self, name: str, value: bytes) -> None:
        """Write, whatever is there. Raises `ToolbusError`."""
        ...

    async def get(self, name: str) -> bytes | None:
        """What is there. Raises `ToolbusError`."""
        ...

    async def written(self, name: str) -> str:
        """When it was written, as text that sorts; empty when nothing is there."""
        ...


@dataclass(slots=True)
class Results:
    """Keeps results and reads them again. `store` opens the bucket when it is first needed."""

    open_store: Callable[[], Awaitable[Store]]
    _store: Store | None = field(default=None)

    async def keep(self, key_digest: str, value: Any) -> str:
        """The handle of a result kept. Raises `ToolbusError`."""
        body = msgspec.json.encode(value)
        store, nonce = await self._opened(), os.urandom(_NONCE)
        place = await self._place(store, key_digest)
        sealed = _cipher(key_digest).encrypt(nonce, body, _name(key_digest, place).encode())
        await store.put(_name(key_digest, place), sealed)
        return f"r{place:x}{urlsafe_b64encode(nonce).decode()}"

    async def read(self, key_digest: str, handle: str) -> bytes | None:
        """The result as JSON; None where this key has none under this handle."""
        found = _HANDLE.fullmatch(handle)
        if found is None:
            return None
        name = _name(key_digest, int(found[1], 16))
        sealed = await (await self._opened()).get(name)
        try:
            nonce = urlsafe_b64decode(found[2])
            return _cipher(key_digest).decrypt(nonce, sealed, name.encode()) if sealed else None
        except InvalidTag:
            return None

    async def recalled(self, key_digest: str, arguments: dict[str, Any]) -> ToolOutcome:
        """What a program gets for a handle."""
        handle = arguments.get("handle")
        try:
            body = await self.read(key_digest, handle) if isinstance(handle, str) else None
        except ToolbusError as error:
            return ToolOutcome(failure=Failure(error.code, error.reason))
        if body is None:
            return ToolOutcome(failure=Failure("unknown_result", _GONE))
        return ToolOutcome(msgspec.json.decode(body))

    async def _place(self, store: Store, key_digest: str) -> int:
        """An empty place of a key, else that of its oldest result; any of those, for replicas."""
        written = await gather(*(store.written(_name(key_digest, each)) for each in range(PLACES)))
        oldest = sorted(range(PLACES), key=lambda each: written[each])
        free = [each for each in oldest if not written[each]]
        return free[os.urandom(1)[0] % len(free)] if free else oldest[0]

    async def _opened(self) -> Store:
        if self._store is None:
            self._store = await self.open_store()
        return self._store


def _name(key_digest: str, place: int) -> str:
    """Where a key's result is. It tells nobody which key: the proof is kept nowhere."""
    return f"{sha256(b'result of ' + key_digest.encode()).hexdigest()[:32]}-{place:x}"


def _cipher(key_digest: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"toolbus result").derive(key_digest.encode()))
