"""The question lane: answered at once, stored nowhere, registered so that `nats micro` lists it."""

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
    """Questions of one service: those it answers, and those it asks."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service = service
        self._bus = bus
        self._registration: Service | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def open(self, status: Callable[[], ServiceStatus]) -> None:
        """Every replica tells its own status from now on."""
        await self.answer_all(StatusQuery, status)

    async def answer_all(self, asked: type[Query], answer: Callable[[], Message]) -> None:
        """Answer a question that goes to every replica."""

        def tell(_payload: bytes, _subject: str, reply: str) -> None:
            if reply:
                task = asyncio.ensure_future(self._bus.publish(reply, answer().encode()))
                task.add_done_callback(_logged)

        await self._bus.subscribe(asked.SUBJECT, tell)

    async def answer(self, answers: dict[type[Query], Answer]) -> None:
        """Begin to answer these: each question is answered by one replica of the service."""
        self._registration = await add_service(
            self._bus.client,
            ServiceConfig(
                name=f"toolbus-{self._service}", version=VERSION, queue_group=self._service
            ),
        )
        for question, handler in answers.items():
            await self._registration.add_endpoint(
                name=question.SUBJECT.rpartition(".")[2],
                subject=question.SUBJECT,
                handler=self._begun(question, _respond(question, handler)),
            )

    async def ask(self, question: Query, answer: type[A], seconds: float = 5.0) -> A:
        """Ask a service. Raises the `ToolbusError` it answers with, or `UnavailableError`."""
        try:
            data = await self._bus.request(question.SUBJECT, question.encode(), seconds)
        except LookupError as error:
            service = question.SUBJECT.split(".")[2]
            raise UnavailableError(f"No {service} service is running.") from error
        except TimeoutError as error:
            raise UnavailableError(f"No answer to {question.SUBJECT} in {seconds:g} s.") from error
        if data.startswith(b"!"):
            raise ToolbusError.from_data(msgspec.json.decode(data[1:]))
        return answer.decode(data)

    async def ask_all(
        self, seconds: float = 0.4, wanted: Collection[str] = ()
    ) -> list[ServiceStatus]:
        """How every replica of every service is that answers in time.

        One of each service that is `wanted` has longer: who is busy is not to be taken for gone.
        """

        def enough(answers: list[bytes]) -> bool:
            return {ServiceStatus.decode(told).service for told in answers}.issuperset(wanted)

        asked = StatusQuery().encode()
        answers = await self._bus.gather(StatusQuery.SUBJECT, asked, seconds, enough)
        return sorted(
            map(ServiceStatus.decode, answers), key=lambda told: (told.service, told.instance)
        )

    async def ask_each(self, question: Query, answer: type[A], seconds: float = 0.4) -> list[A]:
        """What every replica answers in time to a question that goes to all of them."""
        told = await self._bus.gather(question.SUBJECT, question.encode(), seconds)
        return [answer.decode(each) for each in told]

    async def close(self) -> None:
        """Answer no more."""
        if self._registration is not None and self._bus.connected:
            await self._registration.stop()
        await end(*self._under_way)

    def _begun(self, question: type[Query], respond: Respond) -> Respond:
        """The client waits for each answer before it takes the next question: some cannot wait."""
        if question.AT_ONCE == 1:
            return respond
        places = asyncio.Semaphore(question.AT_ONCE)

        async def in_its_place(request: Request) -> None:
            try:
                await respond(request)
            finally:
                places.release()

        async def begin(request: Request) -> None:
            await places.acquire()
            task = asyncio.create_task(in_its_place(request))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(_logged)

        return begin


def _respond(question: type[Query], handler: Answer) -> Respond:
    async def respond(request: Request) -> None:
        if not answerable(request._msg.reply):  # noqa: SLF001 - it has no other way
            log.warning("question.refused", extra={"subject": question.SUBJECT})
            return
        try:
            data = (await handler(question.decode(request.data))).encode()
        except ToolbusError as error:
            data = b"!" + msgspec.json.encode(error.as_data())
        except Exception:
            log.exception("question.failed", extra={"subject": question.SUBJECT})
            unexpected = ToolbusError("Something failed inside; the service's log says what.")
            data = b"!" + msgspec.json.encode(unexpected.as_data())
        await request.respond(data)

    return respond


def _logged(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("answer.lost", extra={"reason": str(error)})
