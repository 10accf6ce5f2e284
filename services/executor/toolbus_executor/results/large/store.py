"""Where large results are kept: in parts, sealed for who made them, for a while.

A part is sealed under a key of its result; the manifest, which holds that key, under one made of
the handle and its principal. So the handle alone opens nothing, nor does the store.

Source: HKDF is RFC 5869, AES-256-GCM is NIST SP 800-38D.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.contracts import CallAdmitted
from toolbus_common.mcp.result_uris import Handle
from toolbus_executor.results.large.quota import Allowance

PART = 1 << 20  # bytes
_NONCE = 12


class Store(Protocol):
    """Objects by name; old ones go by themselves. Each raises `ToolbusError`."""

    async def put(self, name: str, value: bytes) -> None:
        """Write, whatever is there."""
        ...

    async def get(self, name: str) -> bytes | None:
        """What is there."""
        ...

    async def delete(self, name: str) -> None:
        """Remove it, if it is there."""
        ...


class Manifest(msgspec.Struct):
    """What is known of a kept result; `ends` is seconds since the epoch."""

    prefix: str
    key: bytes
    size: int
    media: str
    ends: float
    part: int = PART

    @property
    def is_text(self) -> bool:
        """Whether it is told as text, and not as base64."""
        return self.media.startswith("text/") or self.media.endswith(("json", "xml"))


@dataclass(slots=True)
class Vault:
    """The kept results of this executor's servers. `open_store` is asked when first needed."""

    open_store: Callable[[], Awaitable[Store]]
    allowance: Allowance = field(default_factory=Allowance)
    _store: Store | None = None

    async def put(self, prefix: str, number: int, key: bytes, value: bytes) -> None:
        """Keep one part. Raises `ToolbusError`."""
        name = _part(prefix, number)
        sealed = AESGCM(key).encrypt(_nonce(number), value, name.encode())
        await (await self._opened()).put(name, sealed)

    async def name(self, manifest: Manifest, call: CallAdmitted) -> Handle:
        """The handle of what was kept, for the principal of a call. Raises `ToolbusError`."""
        handle = Handle(call.server, call.tool, secrets.token_hex(16))
        body = _cipher(handle, call).encrypt(bytes(_NONCE), msgspec.json.encode(manifest), None)
        await (await self._opened()).put(_place(handle), body)
        return handle

    async def manifest(self, handle: Handle, call: CallAdmitted) -> Manifest | None:
        """What a handle stands for; None where it is none of this principal's, or is over."""
        sealed = await (await self._opened()).get(_place(handle))
        try:
            body = _cipher(handle, call).decrypt(bytes(_NONCE), sealed, None) if sealed else b""
        except InvalidTag:
            return None
        manifest = msgspec.json.decode(body, type=Manifest) if body else None
        return manifest if manifest is not None and manifest.ends > time() else None

    async def read(self, manifest: Manifest, offset: int, length: int) -> bytes | None:
        """So many bytes from an offset; None where a part is gone. Raises `ToolbusError`."""
        end = min(offset + length, manifest.size)
        found = bytearray()
        first = offset // manifest.part
        for number in range(first, (end - 1) // manifest.part + 1 if end > offset else first):
            name = _part(manifest.prefix, number)
            sealed = await (await self._opened()).get(name)
            if sealed is None:
                return None
            found += AESGCM(manifest.key).decrypt(_nonce(number), sealed, name.encode())
        start = offset - first * manifest.part
        return bytes(found[start : start + end - offset])

    async def forget(self, prefix: str, parts: int) -> None:
        """Remove the parts of what nobody will read. Raises `ToolbusError`."""
        store = await self._opened()
        for number in range(parts):
            await store.delete(_part(prefix, number))

    async def _opened(self) -> Store:
        if self._store is None:
            self._store = await self.open_store()
        return self._store


def _part(prefix: str, number: int) -> str:
    return f"{prefix}-{number:x}"


def _nonce(number: int) -> bytes:
    """Each part has a nonce of its own, and each result a key of its own."""
    return number.to_bytes(_NONCE, "big")


def _place(handle: Handle) -> str:
    """Where a manifest is. It tells nobody the handle."""
    return sha256(f"place of {handle.secret}".encode()).hexdigest()[:32]


def _cipher(handle: Handle, call: CallAdmitted) -> AESGCM:
    """The cipher of one handle for one principal; nothing else is ever sealed under its key."""
    holder = call.principal_id if call.key == ANONYMOUS else call.key
    told = msgspec.json.encode(("toolbus kept", call.customer, holder, handle.server, handle.tool))
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=told).derive(handle.secret.encode()))
