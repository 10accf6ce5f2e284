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


def _said(_writer: EventPublisher, _event: Event) -> None:
    pass


if __name__ == "__main__":
    for name, instead in (("record", _recorded), ("say", _said)):
        setattr(EventPublisher, name, instead)
    sys.exit(run(sys.argv[1:]))
