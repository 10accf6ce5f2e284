"""Querying the status of every service: when the replies are complete."""

from collections.abc import Callable
from typing import Any, cast

from toolbus_common.contracts import ServiceStatus
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus

BUSY = ServiceStatus(service="audit", instance="a", pid=1, ready=True, since=0.0)


class LateBus:
    """A bus with no reply at first, then the reply of a busy service."""

    async def gather(
        self, _subject: str, _payload: bytes, _seconds: float, enough: Callable[[list[bytes]], bool]
    ) -> list[bytes]:
        found: list[bytes] = []
        if not enough(found):
            found.append(BUSY.encode())
        return found


async def statuses(**how: Any) -> list[ServiceStatus]:
    return await RequestReply("operator", cast("Bus", LateBus())).request_all(0.4, **how)


async def test_a_busy_expected_service_is_awaited() -> None:
    assert await statuses(wanted=("audit",)) == [BUSY]


async def test_other_services_are_not_awaited() -> None:
    assert await statuses() == []
