"""Store of large results: in encrypted parts, with a limited lifetime.

Each part is encrypted with a key of its result. The manifest contains this key. It is encrypted
with a key that is derived from the result URI and the principal. Decrypting a result therefore
requires both the URI and access to the store.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Protocol

import msgspec

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.contracts import CallAdmitted
from toolbus_common.crypto.aead import Aead, DecryptionError, derived_key
from toolbus_common.mcp.result_uris import Handle
from toolbus_executor.results.large.quota import Quota

PART = 1 << 20  # bytes


class ObjectStore(Protocol):
    """Objects by name. Objects expire. Each method raises `ToolbusError`."""

    async def put(self, name: str, value: bytes) -> None:
        """Write an object. A previous object with this name is replaced."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Return the object with this name; None if it does not exist."""
        ...

    async def delete(self, name: str) -> None:
        """Delete the object with this name, if it exists."""
        ...


class Manifest(msgspec.Struct):
    """Description of a stored result. `ends` is its expiry in seconds since the epoch.

    `checked` identifies the guards that have checked it.
    """

    prefix: str
    key: bytes
    size: int
    media: str
    ends: float
    part: int = PART
    checked: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the value is returned as text instead of base64."""
        return self.media.startswith("text/") or self.media.endswith(("json", "xml"))


@dataclass(slots=True)
class LargeResultStore:
    """Stored results of this executor's servers. `open_store` is called on first use."""

    open_store: Callable[[], Awaitable[ObjectStore]]
    quota: Quota = field(default_factory=Quota)
    _store: ObjectStore | None = None

    async def put(self, prefix: str, number: int, key: bytes, value: bytes) -> None:
        """Store one part. Raises `ToolbusError`."""
        name = _part(prefix, number)
        await (await self._objects()).put(name, Aead(key).seal(value, name.encode()))

    async def create_handle(self, manifest: Manifest, call: CallAdmitted) -> Handle:
        """Store the manifest of a result and return its handle. Raises `ToolbusError`."""
        handle = Handle(call.server, call.tool, secrets.token_hex(16))
        name = _object_name(handle)
        sealed = _aead(handle, call).seal(msgspec.json.encode(manifest), name.encode())
        await (await self._objects()).put(name, sealed)
        return handle

    async def manifest(self, handle: Handle, call: CallAdmitted) -> Manifest | None:
        """Return the manifest of a handle.

        Return None if the result expired, does not exist, or belongs to another principal. Raises
        `ToolbusError`.
        """
        name = _object_name(handle)
        sealed = await (await self._objects()).get(name)
        try:
            body = _aead(handle, call).open(sealed or b"", name.encode())
        except DecryptionError:
            return None
        manifest = msgspec.json.decode(body, type=Manifest)
        return manifest if manifest.ends > time() else None

    async def read(self, manifest: Manifest, offset: int, length: int) -> bytes | None:
        """Return up to `length` bytes from the offset; None if a part is missing or damaged.

        Raises `ToolbusError`.
        """
        end = min(offset + length, manifest.size)
        found = bytearray()
        first = offset // manifest.part
        for number in range(first, (end - 1) // manifest.part + 1 if end > offset else first):
            name = _part(manifest.prefix, number)
            sealed = await (await self._objects()).get(name)
            try:
                found += Aead(manifest.key).open(sealed or b"", name.encode())
            except DecryptionError:
                return None
        start = offset - first * manifest.part
        return bytes(found[start : start + end - offset])

    async def delete_parts(self, prefix: str, parts: int) -> None:
        """Delete the parts of a result. Raises `ToolbusError`."""
        store = await self._objects()
        for number in range(parts):
            await store.delete(_part(prefix, number))

    async def _objects(self) -> ObjectStore:
        if self._store is None:
            self._store = await self.open_store()
        return self._store


def _part(prefix: str, number: int) -> str:
    return f"{prefix}-{number:x}"


def _object_name(handle: Handle) -> str:
    """Return the name under which a manifest is stored. The name does not reveal the handle."""
    return sha256(f"place of {handle.secret}".encode()).hexdigest()[:32]


def _aead(handle: Handle, call: CallAdmitted) -> Aead:
    """Return the cipher for the manifest of one handle and one principal."""
    holder = call.principal_id if call.key == ANONYMOUS else call.key
    info = msgspec.json.encode(("toolbus kept", call.customer, holder, handle.server, handle.tool))
    return Aead(derived_key(handle.secret.encode(), info))
