"""Crypto-shredding: NATS overwrites a person's key on disk, and all services drop it."""

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import PEOPLE


async def shred(bus: Bus, entry: str, revision: int) -> int:
    """Overwrite a person's entry and notify its watchers. Return the revision of the deletion.

    `revision` is the revision of the entry.

    Raises:
        BusDownError: the deletion failed. The key may still exist.

    """
    stream = bus.client.jetstream()
    try:
        # NATS overwrites a message with random bytes if the message is deleted by its number.
        await stream.delete_msg(f"KV_{PEOPLE}", revision)
        bucket = await stream.key_value(PEOPLE)
        await bucket.delete(entry)
        return (await stream.get_last_msg(f"KV_{PEOPLE}", f"$KV.{PEOPLE}.{entry}")).seq or 0
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The encryption key could not be deleted ({error}); retry.") from error
