"""Services whose policy kills itself at one step of a call, and whose outcomes can be lost.

Usage: `python crashing_policy.py SERVICE…`. The file `crash` in the state directory contains the
step and the key of the call; after the hand-over such a policy no longer reaches Valkey. The file
`forget` lists keys, separated by blanks, whose calls get no outcome event.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from toolbus_common.contracts import Event
from toolbus_common.contracts.events.encoded import EncodedEvent
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process import run
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.lua_scripts import ScriptRunner
from toolbus_policy.ledger.settlement import SettlementConsumer

RESERVED, SENT, RECORDED, HANDED_OVER, ENDED = STEPS = (
    "reserved", "sent", "recorded", "handed-over", "ended",
)  # fmt: skip
CRASH, FORGET = "crash", "forget"
OUTCOMES = ("call.completed", "call.failed")
_reserve, _store, _hand_over = Ledger.reserve, Bus.store, CallTransport.hand_over
_handle, _publish = SettlementConsumer.handle_batch, EventPublisher.publish


def _written(name: str) -> list[str]:
    path = Path(os.environ["TOOLBUS_STATE_DIR"]) / name
    return path.read_text().split() if path.exists() else []


def _is_now(step: str, payload: str) -> bool:
    found = _written(CRASH)
    return len(found) > 1 and found[0] == step and f'"key":"{found[1]}"' in payload


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _reserving(ledger: Ledger, request: Any) -> None:
    await _reserve(ledger, request)
    if _is_now(RESERVED, f'"key":"{request.admission.payer.key}"'):
        _die()


async def _storing(bus: Bus, envelope: Any) -> None:
    intent = envelope.subject.startswith("tb.event.call.allowed")
    if intent and _is_now(SENT, envelope.payload.decode()):
        await bus.client.publish(envelope.subject, envelope.payload, headers=envelope.headers)
        await bus.client.flush()
        _die()
    await _store(bus, envelope)


async def _handing_over(transport: CallTransport, call: Any, *given: Any) -> Any:
    about = f'"key":"{getattr(call, "key", "")}"'
    if _is_now(RECORDED, about):
        _die()
    dies = _is_now(HANDED_OVER, about)
    if dies:
        setattr(ScriptRunner, "run", _never)  # noqa: B010 - mypy knows no other way
    reply = await _hand_over(transport, call, *given)
    if dies:
        await transport._bus.client.flush()
        _die()
    return reply


def _never(*_given: Any) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def _handling(settlement: SettlementConsumer, messages: Any) -> None:
    if any(_is_now(ENDED, message.data.decode()) for message in messages):
        _die()
    await _handle(settlement, messages)


def _publishing(events: EventPublisher, event: Event | EncodedEvent) -> None:
    about = event.decoded() if isinstance(event, EncodedEvent) else event
    if event.NAME not in OUTCOMES or getattr(about, "key", "") not in _written(FORGET):
        _publish(events, event)


if __name__ == "__main__":
    setattr(Ledger, "reserve", _reserving)  # noqa: B010
    setattr(Bus, "store", _storing)  # noqa: B010
    setattr(CallTransport, "hand_over", _handing_over)  # noqa: B010
    setattr(SettlementConsumer, "handle_batch", _handling)  # noqa: B010
    setattr(EventPublisher, "publish", _publishing)  # noqa: B010
    sys.exit(run(sys.argv[1:]))
