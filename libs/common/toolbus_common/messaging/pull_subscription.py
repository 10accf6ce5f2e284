"""Durable pull consumers for FastStream. `PullConsumer` fetches their messages.

FastStream subscribes with nats-py's `pull_subscribe`, which looks up the consumer and creates a
missing one. A service has permission for neither (ADR 18): `toolbus provision` creates the
consumers.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from toolbus_common.errors import BusDownError
from toolbus_common.nats.pull_consumer import PullConsumer

log = logging.getLogger(__name__)

PULL_AGAIN_SECONDS = 0.2  # pause after a failed pull


class PullSubscription:
    """The part of nats-py's pull subscription that FastStream uses.

    After a pull that was not full, the next pull starts `pause` seconds later. The messages of this
    time then arrive together, which costs less than separate messages.
    """

    def __init__(self, pulls: PullConsumer, durable: str, pause: float) -> None:
        self._pulls = pulls
        self._durable = durable
        self._pause = pause
        self._quiet = False

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:  # noqa: ASYNC109 - FastStream's name
        """Return up to `batch` messages that arrive within `timeout` seconds. Raises no error."""
        if self._quiet:
            await asyncio.sleep(self._pause)
        messages: list[Msg] = []
        try:
            messages = await self._pulls.next(batch, timeout)
        except (NatsError, BusDownError) as error:
            log.warning("bus.fetch_failed", extra={"durable": self._durable, "reason": str(error)})
            await asyncio.sleep(PULL_AGAIN_SECONDS)
        self._quiet = len(messages) < batch
        return messages

    async def unsubscribe(self) -> None:
        """End the subscription. Unacknowledged messages are redelivered."""
        await self._pulls.close()


class BoundStreams(JetStreamContext):
    """JetStream for FastStream's subscribers. `pauses` contains the pause of each durable."""

    def __init__(self, client: Client, pauses: Mapping[str, float]) -> None:
        super().__init__(client)
        self._client = client
        self._pauses = pauses

    async def pull_subscribe(  # type: ignore[override]
        self, *, durable: str, stream: str, **_options: Any
    ) -> PullSubscription:
        """Subscribe to an existing durable consumer, with the options of its creation."""
        pulls = PullConsumer(self._client, stream, durable)
        await pulls.open()
        return PullSubscription(pulls, durable, self._pauses[durable])
