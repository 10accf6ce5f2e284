"""Origin of the installation's logs: its name, set once and signed in every checkpoint."""

from secrets import token_hex

from toolbus_common.nats.kv_bucket import Bucket

ORIGIN = "origin"  # the entry of the bucket


async def origin_of_installation(bucket: Bucket, wanted: str) -> str:
    """Return the stored name. If no name is stored, store and return `wanted` or a random name.

    The name never changes, because auditors and witnesses treat a log with another name as another
    log.
    """
    stored = await bucket.get(ORIGIN)
    if stored is not None and stored.value:
        return stored.value.decode()
    name = wanted or f"toolbus-{token_hex(8)}"
    if await bucket.swap(ORIGIN, name.encode(), stored.revision if stored else 0) is None:
        return await origin_of_installation(bucket, wanted)  # another audit replica was faster
    return name
