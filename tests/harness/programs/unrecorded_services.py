"""Services that publish no events, to measure the cost of recording.

Usage: `python unrecorded_services.py SERVICE…`.
"""

import asyncio
import sys

from toolbus_common.contracts import Event
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.service.process import run


def _recorded(_writer: EventPublisher, _event: Event) -> "asyncio.Future[None]":
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _published(_writer: EventPublisher, _event: Event) -> None:
    pass


if __name__ == "__main__":
    setattr(EventPublisher, "publish_durable", _recorded)  # noqa: B010
    setattr(EventPublisher, "publish", _published)  # noqa: B010
    sys.exit(run(sys.argv[1:]))
