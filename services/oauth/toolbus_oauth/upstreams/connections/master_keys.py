"""Master keys by reference: read from a store, or wrapped by a key service.

A key service is called only at start: it unwraps the master key for this process. Wrapped keys are
stored in the bucket of the data that they encrypt, so every replica uses the same keys. Without the
key service, wrapped keys cannot be used.
"""

import asyncio
import os
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from toolbus_common.crypto.key_file import KEY_BYTES, read_key
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets.key_service import KeyService
from toolbus_common.secrets.reader import READ_SECONDS, Secrets
from toolbus_common.secrets.references import SecretError, references_in


@dataclass(frozen=True, slots=True)
class Masters:
    """Source of master keys.

    In a reference `service:path#label`, the label distinguishes master keys that the same key of
    the service wraps.
    """

    secrets: Secrets
    services: Mapping[str, KeyService]
    bucket: Bucket

    async def newest(self, reference: str) -> bytes:
        """Return the master key for encryption; the first use of a key service creates the key.

        Raises:
            SecretError: the key is not available; the message contains the fix.

        """
        service, path = self._service_of(reference)
        if service is not None and await self.bucket.get(_entry(reference)) is None:
            wrapped = await _call_service(reference, service.wrap, path, os.urandom(KEY_BYTES))
            await self.bucket.swap(_entry(reference), wrapped, 0)  # the first of two replicas wins
        return await self._key(reference)

    async def earlier(self, location: str) -> bytes:
        """Return an earlier master key, by reference or from a file; a missing key is an error.

        Raises:
            SecretError: the key is not available; the message contains the fix.
            ValueError: the file does not exist, or contains no key.

        """
        known = self._service_of(location)[0] is not None or references_in([_braced(location)])
        return await self._key(location) if known else read_key(Path(location))

    async def _key(self, reference: str) -> bytes:
        service, path = self._service_of(reference)
        if service is None:
            return await self._stored_key(reference)
        entry = await self.bucket.get(_entry(reference))
        if entry is None or entry.value is None:
            raise SecretError(
                f"No master key of this vault was wrapped with {reference}; set the reference of "
                "the key that wrapped it."
            )
        key = await _call_service(reference, service.unwrap, path, entry.value)
        if len(key) != KEY_BYTES:
            raise SecretError(
                f"{reference} unwrapped a value that is not a master key; restore the bucket."
            )
        return key

    async def _stored_key(self, reference: str) -> bytes:
        """Return the key that a secret store contains as base64 text."""
        found = await self.secrets.read([_braced(reference)])
        if not found:
            raise SecretError(
                f"{reference} does not name a known store or key service; docs/how-to/secrets.md "
                "lists them."
            )
        try:
            key = b64decode(next(iter(found.values())).strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SecretError(
                f"{reference} must contain 32 bytes in base64; 'openssl rand -base64 32' creates "
                "them."
            )
        return key

    def _service_of(self, reference: str) -> tuple[KeyService | None, str]:
        """Return the key service that a reference names, or None, and the path of the key."""
        name, _, rest = reference.partition(":")
        return self.services.get(name), rest.partition("#")[0]


def _entry(reference: str) -> str:
    return f"master.{sha256(reference.encode()).hexdigest()[:40]}"


def _braced(reference: str) -> str:
    return f"${{{reference}}}"


async def _call_service(
    reference: str, operation: Callable[[str, bytes], bytes], path: str, data: bytes
) -> bytes:
    """Call a key service. Error details are dropped, because they may contain the request."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await asyncio.to_thread(operation, path, data)
    except SecretError as error:
        raise SecretError(str(error)) from None
    except TimeoutError:
        raise SecretError(
            f"{reference} did not respond within {READ_SECONDS:g} s; check that this service can "
            "reach it."
        ) from None
