"""Keys that all replicas of a service must share, compared on the bus when a replica starts.

The bus has a keyed digest of each key, never the key. The first replica stores it.
"""

import hmac
from hashlib import sha256

from toolbus_common.errors import UnknownEntryError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import INSTALLATION

_LABEL = b"toolbus fingerprint of "
_CHARACTERS = 32


def fingerprint(name: str, key: bytes) -> str:
    """Return the digest that identifies a key."""
    return hmac.digest(key, _LABEL + name.encode(), sha256).hex()[:_CHARACTERS]


class SharedKeys:
    """The shared keys of one service."""

    def __init__(self) -> None:
        self._fingerprints: dict[str, list[str]] = {}

    def add(self, name: str, *keys: bytes) -> None:
        """Add a shared key: the one in use, and earlier ones that this replica still accepts."""
        self._fingerprints[name] = [fingerprint(name, key) for key in keys]

    @property
    def digests(self) -> dict[str, tuple[str, ...]]:
        """The digests of the keys that this replica accepts, that of the key in use first."""
        return {name: tuple(found) for name, found in self._fingerprints.items()}

    def __bool__(self) -> bool:
        return bool(self._fingerprints)

    async def refusal(self, bucket: Bucket, service: str) -> str:
        """Return why this replica may not work with the other replicas; empty if it may.

        If the stored key is one of the earlier keys of this replica, the replica's current key
        replaces it. Raises `BusDownError`.
        """
        for name, mine in sorted(self._fingerprints.items()):
            if not await _agreed(bucket, f"{service}.{name}", mine):
                return (
                    f"This replica of {service} has another '{name}' key than the installation; "
                    "copy the key file of a running replica and restart this one. If that key is "
                    f"lost, stop all replicas of {service}, run 'toolbus provision --forget "
                    f"{service}.{name}', and start them with one key."
                )
        return ""


async def _agreed(bucket: Bucket, entry: str, mine: list[str]) -> bool:
    """Return whether the entry is missing or one of `mine`; if so, store the first of `mine`."""
    found = await bucket.get(entry)
    if found is None or not found.value:
        if await bucket.swap(entry, mine[0].encode(), 0) is not None:
            return True
        found = await bucket.get(entry)  # another replica was faster
    if found is None or found.value is None or found.value.decode() not in mine:
        return False
    if found.value.decode() != mine[0]:
        await bucket.swap(entry, mine[0].encode(), found.revision)
    return True


async def forget_entry(bus: Bus, entry: str) -> None:
    """Delete an entry, so that the next replica stores its own. Raises `UnknownEntryError`."""
    bucket = await bus.bucket(INSTALLATION)
    if await bucket.get(entry) is None:
        known = ", ".join(sorted(each.key for each in await bucket.present() if each.value))
        raise UnknownEntryError(f"There is no entry '{entry}'; there are: {known or 'none'}.")
    await bucket.delete(entry)
