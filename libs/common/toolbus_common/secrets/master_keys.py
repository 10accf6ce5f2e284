"""Master keys by reference: read where they are kept, or wrapped by a key service and kept here.

A key service is asked at a start alone: it opens the master key for this process. What it wrapped
lies in a bucket, beside what is sealed with it, where every replica finds the same; without the
service it is of no use.
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
    """Finds master keys. `service:path#label` is one of several that a service's key wrapped."""

    secrets: Secrets
    services: Mapping[str, KeyService]
    bucket: Bucket

    async def newest(self, reference: str) -> bytes:
        """The master key to seal with. A service is given one to wrap where it has none yet.

        Raises:
            SecretError: it cannot be had, and what to do.

        """
        service, path = self._service(reference)
        if service is not None and await self.bucket.get(_entry(reference)) is None:
            wrapped = await _asked(reference, service.wrap, path, os.urandom(KEY_BYTES))
            await self.bucket.swap(_entry(reference), wrapped, 0)  # of two replicas one is faster
        return await self._key(reference)

    async def earlier(self, place: str) -> bytes:
        """A master key that was used before: by reference, else a file. It must be there.

        Raises:
            SecretError: it cannot be had, and what to do.
            ValueError: there is no such file, or it holds no key.

        """
        known = self._service(place)[0] is not None or references_in([_braced(place)])
        return await self._key(place) if known else read_key(Path(place))

    async def _key(self, reference: str) -> bytes:
        service, path = self._service(reference)
        if service is None:
            return await self._kept(reference)
        entry = await self.bucket.get(_entry(reference))
        if entry is None or entry.value is None:
            raise SecretError(f"{reference} wrapped no master key of this vault; name one it did.")
        key = await _asked(reference, service.unwrap, path, entry.value)
        if len(key) != KEY_BYTES:
            raise SecretError(f"What {reference} unwrapped is no master key; restore the bucket.")
        return key

    async def _kept(self, reference: str) -> bytes:
        """The key that a store keeps as text."""
        found = await self.secrets.read([_braced(reference)])
        if not found:
            raise SecretError(
                f"{reference} names no store or key service; docs/how-to/secrets.md lists them."
            )
        try:
            key = b64decode(next(iter(found.values())).strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SecretError(
                f"{reference} must hold 32 bytes in base64; 'openssl rand -base64 32' makes them."
            )
        return key

    def _service(self, reference: str) -> tuple[KeyService | None, str]:
        """The service a reference names, if it is one's, and its own key there."""
        name, _, rest = reference.partition(":")
        return self.services.get(name), rest.partition("#")[0]


def _entry(reference: str) -> str:
    return f"master.{sha256(reference.encode()).hexdigest()[:40]}"


def _braced(reference: str) -> str:
    return f"${{{reference}}}"


async def _asked(
    reference: str, deed: Callable[[str, bytes], bytes], path: str, what: bytes
) -> bytes:
    """What a service answers. What went wrong there is not told: it may quote what was sent."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await asyncio.to_thread(deed, path, what)
    except SecretError as error:
        raise SecretError(str(error)) from None
    except TimeoutError:
        raise SecretError(f"{reference} did not answer within {READ_SECONDS:g} s.") from None
