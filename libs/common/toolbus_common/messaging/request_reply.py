"""Request-reply between services: replies at once, stores nothing, visible to `nats micro`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

import msgspec
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import Service, ServiceConfig

from toolbus_common import VERSION
from toolbus_common.concurrency import end
from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query, ServiceStatus, StatusQuery
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.nats.connection import Bus, answerable

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Message)
Answer = Callable[[Any], Awaitable[Message]]
Respond = Callable[[Request], Awaitable[None]]


class RequestReply:
    """Sends and serves the queries of one service."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service = service
        self._bus = bus
        self._registration: Service | None = None
        self._in_progress: set[asyncio.Task[None]] = set()

    async def open(self, status: Callable[[], ServiceStatus]) -> None:
        """Serve the status query: every replica replies with its own status."""
        await self.answer_all(StatusQuery, status)

    async def answer_all(self, query_type: type[Query], answer: Callable[[], Message]) -> None:
        """Serve a query that goes to every replica."""

        def respond(_payload: bytes, _subject: str, reply: str) -> None:
            if reply:
                task = asyncio.ensure_future(self._bus.publish(reply, answer().encode()))
                task.add_done_callback(_logged)

        await self._bus.subscribe(query_type.SUBJECT, respond)

    async def answer(self, answers: dict[type[Query], Answer]) -> None:
        """Serve queries; one replica of the service replies to each."""
        self._registration = await add_service(
            self._bus.client,
            ServiceConfig(
                name=f"toolbus-{self._service}", version=VERSION, queue_group=self._service
            ),
        )
        for query, handler in answers.items():
            await self._registration.add_endpoint(
                name=query.SUBJECT.rpartition(".")[2],
                subject=query.SUBJECT,
                handler=self._concurrently(query, _respond(query, handler)),
            )

    async def request(self, query: Query, answer: type[A], seconds: float = 5.0) -> A:
        """Send a query to a service and return the reply.

        Raises:
            ToolbusError: the error the service replied with.
            UnavailableError: no replica of the service replied in time.

        """
        try:
            data = await self._bus.request(query.SUBJECT, query.encode(), seconds)
        except LookupError as error:
            service = query.SUBJECT.split(".")[2]
            raise UnavailableError(f"No {service} service is running.") from error
        except TimeoutError as error:
            raise UnavailableError(f"No reply to {query.SUBJECT} within {seconds:g} s.") from error
        if data.startswith(b"!"):
            raise ToolbusError.from_data(msgspec.json.decode(data[1:]))
        return answer.decode(data)

    async def request_all(
        self, seconds: float = 0.4, wanted: Collection[str] = ()
    ) -> list[ServiceStatus]:
        """Return the status of every replica of every service that replies in time.

        One replica of each service in `wanted` gets more time: a busy service is not reported as
        gone.
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

    async def close(self) -> None:
        """Stop serving queries."""
        if self._registration is not None and self._bus.connected:
            await self._registration.stop()
        await end(*self._in_progress)

    def _concurrently(self, query: type[Query], respond: Respond) -> Respond:
        """Let queries of a type with `AT_ONCE` above 1 run concurrently.

        The NATS client awaits each handler before it takes the next query.
        """
        if query.AT_ONCE == 1:
            return respond
        slots = asyncio.Semaphore(query.AT_ONCE)

        async def in_a_slot(request: Request) -> None:
            try:
                await respond(request)
            finally:
                slots.release()

        async def begin(request: Request) -> None:
            await slots.acquire()
            task = asyncio.create_task(in_a_slot(request))
            self._in_progress.add(task)
            task.add_done_callback(self._in_progress.discard)
            task.add_done_callback(_logged)

        return begin


def _respond(query: type[Query], handler: Answer) -> Respond:
    async def respond(request: Request) -> None:
        if not answerable(request._msg.reply):  # noqa: SLF001 - the client has no public accessor
            log.warning("query.rejected", extra={"subject": query.SUBJECT})
            return
        try:
            data = (await handler(query.decode(request.data))).encode()
        except ToolbusError as error:
            data = b"!" + msgspec.json.encode(error.as_data())
        except Exception:
            log.exception("query.failed", extra={"subject": query.SUBJECT})
            unexpected = ToolbusError("Internal error; the log of the service has the details.")
            data = b"!" + msgspec.json.encode(unexpected.as_data())
        await request.respond(data)

    return respond


def _logged(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("reply.lost", extra={"reason": str(error)})
