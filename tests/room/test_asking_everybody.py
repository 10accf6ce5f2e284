"""Asking every room how it is: who is busy is waited for, and who is not there is not for long."""

import asyncio

from harness.facts import bus_of
from toolbus_common.asklane import AskLane
from toolbus_common.bus import Bus
from toolbus_common.contracts import RoomStatus
from toolbus_common.contracts.questions import StatusAsked
from toolbus_common.settings import Settings

SOON, LATER = 0.05, 0.5
BUSY = RoomStatus(room="audit", instance="a", pid=1, ready=True, since=0.0)


async def answers_late(bus: Bus) -> None:
    """Have a room answer that has something else to do first."""

    async def answer(reply: str) -> None:
        await asyncio.sleep(LATER)
        await bus.publish(reply, BUSY.encode())

    def tell(_payload: bytes, _subject: str, reply: str) -> None:
        under_way.add(asyncio.ensure_future(answer(reply)))

    under_way: set[asyncio.Future[None]] = set()
    await bus.subscribe(StatusAsked.SUBJECT, tell)
    await bus.client.flush()


async def test_a_busy_room_that_is_wanted_is_not_taken_for_gone(
    settings: Settings, operator: Bus
) -> None:
    async with bus_of("audit", settings) as audit:
        await answers_late(audit)
        assert await AskLane("operator", operator).ask_all(SOON, wanted=("audit",)) == [BUSY]


async def test_a_room_that_is_not_there_is_not_waited_for_without_end(
    settings: Settings, operator: Bus
) -> None:
    async with bus_of("audit", settings) as audit:
        await answers_late(audit)
        told = await AskLane("operator", operator).ask_all(SOON, wanted=("audit", "policy"))
        assert told == [BUSY]
