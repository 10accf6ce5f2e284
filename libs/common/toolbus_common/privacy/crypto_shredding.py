"""Crypto-shredding: a person's key is overwritten on the disk of NATS and dropped by services."""

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import PEOPLE


async def shred(bus: Bus, entry: str, revision: int) -> int:
    """Overwrite an entry and notify its watchers; return the revision of the deletion.

    Raises:
        BusDownError: the deletion failed; the key may still be there.

    """
    stream = bus.client.jetstream()
    try:
        # The server overwrites a message that is deleted by its number with random bytes.
        await stream.delete_msg(f"KV_{PEOPLE}", revision)
        bucket = await stream.key_value(PEOPLE)
        await bucket.delete(entry)
        return (await stream.get_last_msg(f"KV_{PEOPLE}", f"$KV.{PEOPLE}.{entry}")).seq or 0
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The encryption key could not be deleted ({error}); retry.") from error
