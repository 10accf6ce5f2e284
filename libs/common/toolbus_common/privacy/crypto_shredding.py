"""Shredding a person's key: written over on the disk of the bus, and let go by every service."""

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import PEOPLE


async def shred(bus: Bus, entry: str, revision: int) -> int:
    """Have an entry's bytes written over, and everybody told; the revision that tells them.

    Raises:
        BusDownError: the bus did not take it; the key may still be there.

    """
    stream = bus.client.jetstream()
    try:
        # The server writes random bytes over a message that is deleted by its number.
        await stream.delete_msg(f"KV_{PEOPLE}", revision)
        bucket = await stream.key_value(PEOPLE)
        await bucket.delete(entry)
        return (await stream.get_last_msg(f"KV_{PEOPLE}", f"$KV.{PEOPLE}.{entry}")).seq or 0
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The key could not be shredded ({error}); do it again.") from error
