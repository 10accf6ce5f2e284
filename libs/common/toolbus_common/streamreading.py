"""Reading a stream in its own order from any place, without a consumer and without a right to more.

NATS 2.11 calls it a batched direct get (ADR-31).
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError

MOST = 1000  # messages the server gives at once
_ANSWER_SECONDS = 5.0
_END, _NOTHING = "204", "404"


@dataclass(frozen=True, slots=True)
class Kept:
    """One message as the stream keeps it."""

    sequence: int
    subject: str
    data: bytes


async def begun(client: Client, stream: str) -> str:
    """When a stream was begun: a number that tells it from one of its name made later.

    Raises:
        BusDownError: the server does not say.

    """
    try:
        created: datetime | None = (await client.jetstream().stream_info(stream)).created
    except (NatsError, JetStreamError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be looked at: {error}") from error
    return str(int(created.timestamp() * 1000)) if created else "0"


async def read_from(
    client: Client, stream: str, first: int, subjects: str, most: int = MOST
) -> list[Kept]:
    """At most so many messages of these subjects, from number `first` on; none if there are none.

    Raises:
        BusDownError: the server did not answer to the end.

    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    question = {"seq": first, "batch": most, "next_by_subj": subjects}
    found: list[Kept] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(question), inbox)
        while (message := await subscription.next_msg(timeout=_ANSWER_SECONDS)).data:
            found.append(_kept(message))
    except (NatsError, TimeoutError) as error:
        raise BusDownError(f"The stream {stream} cannot be read: {error}") from error
    finally:
        await subscription.unsubscribe()
    status = (message.headers or {}).get("Status", "")
    if status not in (_END, _NOTHING):
        raise BusDownError(f"The stream {stream} cannot be read: the server answered {status}.")
    return found


def _kept(message: Msg) -> Kept:
    headers = message.headers or {}
    return Kept(int(headers["Nats-Sequence"]), headers["Nats-Subject"], message.data)
