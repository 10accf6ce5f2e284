"""Identity of the store: the id in the store must equal the id in the bucket.

With two stores, each would have a part of the events: counts, evidence and rebuilt budgets would
be wrong.
"""

from collections.abc import Callable
from secrets import token_hex
from typing import Any

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import EVENT_STORE

ALREADY_FULL = (
    "The events of this installation are in ClickHouse; start it without --lite, or choose another "
    "state directory."
)
_INSERT = "INSERT INTO store_identity (id) VALUES ('{id}')"
_IDS = "SELECT id FROM store_identity ORDER BY at, id"


def ids_of(rows: Callable[[str], Any], command: Callable[[str], None]) -> list[str]:
    """Return the ids of the store, the oldest first. A store without an id gets one."""
    if not (found := rows(_IDS)):
        command(_INSERT.format(id=token_hex(8)))
        found = rows(_IDS)
    return [str(each) for (each,) in found]


async def admit(bucket: Bucket, ids: list[str], location: str) -> str:
    """Return the id of the installation's store, which is one of `ids`.

    The first store becomes the store of the installation. Raises `StoreDownError` for another one.
    """
    found = await bucket.get(EVENT_STORE)
    if found is None or not found.value:
        if await bucket.swap(EVENT_STORE, ids[0].encode(), 0) is not None:
            return ids[0]
        found = await bucket.get(EVENT_STORE)
    known = found.value.decode() if found is not None and found.value else ""
    if known in ids:
        return known
    raise StoreDownError(
        f"This audit service has a store of its own ({location}, id {ids[0]}), but the events of "
        f"this installation are in the store {known}. Use that store (TOOLBUS_CLICKHOUSE_URL or "
        "the state directory), or end this service. If that store is lost, run 'toolbus provision "
        f"--forget {EVENT_STORE}', then 'toolbus audit backfill'."
    )


async def reject_file(bucket: Bucket) -> None:
    """Raise `StoreDownError` if the events of the installation are stored in ClickHouse."""
    found = await bucket.get(EVENT_STORE)
    if found is not None and found.value:
        raise StoreDownError(ALREADY_FULL)
