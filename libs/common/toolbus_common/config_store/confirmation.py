"""Storage of the destinations that the operator confirms, in the bucket entry `named`."""

from collections.abc import Callable

from toolbus_common.config import Configuration
from toolbus_common.config_store.operator_targets import NAMED, decoded, digests_of, encoded
from toolbus_common.errors import ConflictError
from toolbus_common.nats.kv_bucket import Bucket

ATTEMPTS = 8
Digests = frozenset[str]


async def confirm(bucket: Bucket, configuration: Configuration) -> None:
    """Store all destinations of this configuration as confirmed by the operator."""
    await _change(bucket, lambda known: known | set(digests_of(configuration)))


async def revoke_unused(bucket: Bucket, configuration: Configuration) -> None:
    """Remove all confirmed destinations that this configuration does not contain."""
    await _change(bucket, lambda known: known & set(digests_of(configuration)))


async def _change(bucket: Bucket, make: Callable[[Digests], Digests]) -> None:
    for _ in range(ATTEMPTS):
        entry = await bucket.get(NAMED)
        known = decoded(entry.value) if entry is not None else frozenset()
        wanted = make(known)
        if wanted == known:
            return
        last = entry.revision if entry is not None else 0
        if await bucket.swap(NAMED, encoded(set(wanted)), last) is not None:
            return
    raise ConflictError(
        "Concurrent changes of the configuration kept conflicting; nothing was changed. Retry."
    )
