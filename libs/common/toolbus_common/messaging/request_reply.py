"""Queries to services. They are never stored, and get a reply immediately.

`broker.py` serves them. They are sent with the NATS client, because the command line, which starts
for each command, does not import FastStream.
"""

from collections.abc import Collection
from typing import TypeVar

import msgspec

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query, ServiceStatus, StatusQuery
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.nats.connection import Bus

A = TypeVar("A", bound=Message)


class RequestReply:
    """Sender of queries, for one service or for an operator."""

    def __init__(self, sender: str, bus: Bus) -> None:
        self.sender = sender
        self._bus = bus

    async def request(self, query: Query, answer: type[A], seconds: float = 5.0) -> A:
        """Send a query to a service and return the reply.

        Raises:
            ToolbusError: the service replied with this error.
            UnavailableError: no replica of the service replied in time.

        """
        try:
            data = await self._bus.request(query.SUBJECT, query.encode(), seconds)
        except LookupError as error:
            service = query.SUBJECT.split(".")[2]
            raise UnavailableError(f"No {service} service is running; start one.") from error
        except TimeoutError as error:
            raise UnavailableError(
                f"No reply to {query.SUBJECT} within {seconds:g} s; check 'toolbus status'."
            ) from error
        if data.startswith(b"!"):
            raise ToolbusError.from_data(msgspec.json.decode(data[1:]))
        return answer.decode(data)

    async def request_all(
        self, seconds: float = 0.4, wanted: Collection[str] = ()
    ) -> list[ServiceStatus]:
        """Return the status of every replica of every service that replies within `seconds`.

        Services in `wanted` get more time for one reply, so that a busy service is not reported as
        missing.
        """

        def enough(answers: list[bytes]) -> bool:
            return {ServiceStatus.decode(status).service for status in answers}.issuperset(wanted)

        payload = StatusQuery().encode()
        answers = await self._bus.gather(StatusQuery.SUBJECT, payload, seconds, enough)
        return sorted(
            map(ServiceStatus.decode, answers), key=lambda status: (status.service, status.instance)
        )

    async def request_each(self, query: Query, answer: type[A], seconds: float = 0.4) -> list[A]:
        """Return the replies of all replicas that reply within `seconds`."""
        replies = await self._bus.gather(query.SUBJECT, query.encode(), seconds)
        return [answer.decode(reply) for reply in replies]
