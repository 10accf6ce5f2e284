"""Replacement of `people.key`, which encrypts the keys of persons in their bucket.

The keys of persons stay the same, and with them the pseudonyms and the content of events. The
entry `CHECK` names the master key that encrypts new keys, for all services at once.

Each stage can be repeated after it was interrupted.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from toolbus_cli.errors import CommandError
from toolbus_cli.rotation import key_files, replicas
from toolbus_common.crypto.key_file import KeyFiles, read_key
from toolbus_common.guards.placeholders import is_stored_with
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.permissions import readers_of
from toolbus_common.nats.topology import PEOPLE, PLACEHOLDERS
from toolbus_common.privacy.key_store import LEARNED_SECONDS, OTHER_KEY
from toolbus_common.privacy.person_key import CHECK, Master, Names

KEY = "people"


async def switched(bus: Bus, path: Path) -> str:
    """Let every service encrypt new keys of persons with the next master key.

    Raises `CommandError` if a replica does not accept it.
    """
    following = key_files.next_of(path)
    if following.exists():
        key = read_key(following)
        await replicas.require(bus, KEY, dict.fromkeys(readers_of(PEOPLE), key))
        await lead(await bus.bucket(PEOPLE), KeyFiles(path).keys, key)
    return key_files.switched(path)


async def finished(bus: Bus, path: Path, *, now: bool) -> str:
    """Encrypt all keys of persons with the master key in use, and remove the earlier ones.

    With `now`, values of redacted texts that an earlier key encrypted may be lost. Raises
    `CommandError` if a replica does not use the key.
    """
    key_files.require_switched(path)
    keys, bucket = KeyFiles(path).keys, await bus.bucket(PEOPLE)
    await replicas.require(bus, KEY, dict.fromkeys(readers_of(PEOPLE), keys[0]), in_use=True)
    await lead(bucket, keys, keys[0])
    changed = await rewritten(bucket, keys)
    await asyncio.sleep(LEARNED_SECONDS)  # a replica may have been creating a key
    while more := await rewritten(bucket, keys):
        changed += more
        await asyncio.sleep(key_files.STORED_SECONDS)
    if not now:
        await _require_expired(await bus.bucket(PLACEHOLDERS), keys[1:])
    removed = key_files.finished(path)
    left = await replicas.with_others(bus, KEY, keys[0])
    return " ".join([f"Keys of persons that were encrypted again: {changed}.", removed, *left])


async def lead(bucket: Bucket, keys: Sequence[bytes], key: bytes) -> None:
    """Name a master key as the one that encrypts new keys of persons.

    Raises `CommandError` if the one named so far is not among `keys`.
    """
    master = Master(key)
    while True:
        found = await bucket.get(CHECK)
        if found is None or found.value is None:
            names, last = master.names, 0
        else:
            names, last = _names(found.value, keys), found.revision
            if master.names_in(found.value) is not None:
                return
        if await bucket.swap(CHECK, master.check(names), last) is not None:
            return


async def rewritten(bucket: Bucket, keys: Sequence[bytes]) -> int:
    """Encrypt entries of earlier master keys with the first of `keys`; return their number.

    Raises `CommandError` if there are entries that none of these keys can decrypt.
    """
    newest, *earlier = map(Master, keys)
    count = unknown = 0
    for change in await bucket.present():
        if change.key == CHECK or change.value is None or newest.open(change.key, change.value):
            continue
        found = (each.open(change.key, change.value) for each in earlier)
        person = next((each for each in found if each is not None), None)
        if person is None:
            unknown += 1
            continue
        # On a conflict, the entry was erased, or the next pass finds it.
        await bucket.swap(change.key, newest.seal(person, change.key), change.revision)
        count += 1
    if unknown:
        raise CommandError(
            "There are keys of persons that were encrypted with a master key that is not in this "
            f"directory ({unknown}); no key file was removed. Add its file beside people.key, and "
            "repeat the command."
        )
    return count


def _names(check: bytes, keys: Sequence[bytes]) -> Names:
    for each in map(Master, keys):
        names = each.names_in(check)
        if names is not None:
            return names
    raise CommandError(OTHER_KEY)


async def _require_expired(values: Bucket, earlier: Sequence[bytes]) -> None:
    """Raise `CommandError` while redacted values that an earlier key encrypted are stored."""
    async for batch in values.batches():
        for change in batch:
            if change.value is not None and any(
                is_stored_with(key, change.key, change.value) for key in earlier
            ):
                raise CommandError(
                    "All keys of persons were encrypted again, but guards can still restore values "
                    "that were redacted with an earlier key; no key file was removed. These values "
                    "expire a day after they were redacted. Repeat the command then, or with "
                    "'--now', which loses them."
                )
