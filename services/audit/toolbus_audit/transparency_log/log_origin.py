"""Gives the installation its name: made once, kept for good, and signed in every checkpoint."""

from secrets import token_hex

from toolbus_common.nats.kv_bucket import Bucket

ORIGIN = "origin"  # the entry of the bucket


async def settled(bucket: Bucket, wanted: str) -> str:
    """The name that is kept; the wanted one, or one that nobody else has, where none is yet.

    It is never changed: logs under another name would be other logs, to auditors and witnesses.
    """
    kept = await bucket.get(ORIGIN)
    if kept is not None and kept.value:
        return kept.value.decode()
    name = wanted or f"toolbus-{token_hex(8)}"
    if await bucket.swap(ORIGIN, name.encode(), kept.revision if kept else 0) is None:
        return await settled(bucket, wanted)  # another audit was faster
    return name
