"""The operator's word on what his file names: given before it takes effect, and tidied after."""

from collections.abc import Callable

from toolbus_common.config import Configuration
from toolbus_common.config_store.operator_targets import NAMED, decoded, digests_of, encoded
from toolbus_common.errors import ConflictError
from toolbus_common.nats.kv_bucket import Bucket

ATTEMPTS = 8
Digests = frozenset[str]


async def vouch(bucket: Bucket, declaration: Configuration) -> None:
    """Say that the operator named where everything here leads."""
    await _change(bucket, lambda known: known | set(digests_of(declaration)))


async def forget_the_rest(bucket: Bucket, declaration: Configuration) -> None:
    """Take back the word on what is declared no longer."""
    await _change(bucket, lambda known: known & set(digests_of(declaration)))


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
    raise ConflictError("Somebody else is changing the configuration; try again.")
