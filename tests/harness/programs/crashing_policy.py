"""Services whose policy kills itself at one step of a call, and whose outcomes can be lost.

Usage: `python crashing_policy.py SERVICE…`. The file `crash` in the state directory contains the
step and the key of the call. At the step `handed-over`, policy also changes nothing in Valkey after
it handed the call to executor. The file `forget` lists keys, separated by blanks, whose calls get
no outcome event.

An executor in another process cannot kill policy: before it publishes the outcome of a call whose
step is `executed`, it writes the file `executed` and waits until that is removed.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from toolbus_common.contracts import Event
from toolbus_common.contracts.events.encoded import EncodedEvent
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process import run
from toolbus_policy.flow.follower import FlowFollower, Judgement
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.lua_scripts import ScriptRunner
from toolbus_policy.ledger.settlement import SettlementConsumer

RECEIVED, RESERVED, SENT, RECORDED, HANDED_OVER, EXECUTING, EXECUTED, ENDED, SETTLED = STEPS = (
    "received", "reserved", "sent", "recorded", "handed-over", "executing", "executed", "ended",
    "settled",
)  # fmt: skip
# Before and after the bucket `tb_flow` says what a call reads.
READING, READ = "reading", "read"
CRASH, FORGET, EXECUTED_FILE = "crash", "forget", "executed"
OUTCOMES = ("call.completed", "call.failed")
_reserve, _store, _hand_over = Ledger.reserve, Bus.store, CallTransport.hand_over
_commit = FlowFollower.commit
_handle, _publish = SettlementConsumer.handle_batch, EventPublisher.publish


def _state(name: str) -> Path:
    return Path(os.environ["TOOLBUS_STATE_DIR"]) / name


def _written(name: str) -> list[str]:
    path = _state(name)
    return path.read_text().split() if path.exists() else []


def _is_now(step: str, payload: str) -> bool:
    found = _written(CRASH)
    return len(found) > 1 and found[0] == step and f'"key":"{found[1]}"' in payload


def _about(call: Any) -> str:
    return f'"key":"{getattr(call, "key", "")}"'


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _reserving(ledger: Ledger, request: Any) -> None:
    payer = _about(request.admission.payer)
    if _is_now(RECEIVED, payer):
        _die()
    await _reserve(ledger, request)
    if _is_now(RESERVED, payer):
        _die()


async def _committing(flow: FlowFollower, judged: Judgement | None, call: Any) -> None:
    about = _about(judged.caller.principal if judged is not None else None)
    if _is_now(READING, about):
        _die()
    await _commit(flow, judged, call)
    if _is_now(READ, about):
        _die()


async def _storing(bus: Bus, envelope: Any) -> None:
    intent = envelope.subject.startswith("tb.event.call.allowed")
    if intent and _is_now(SENT, envelope.payload.decode()):
        await bus.client.publish(envelope.subject, envelope.payload, headers=envelope.headers)
        await bus.client.flush()
        _die()
    await _store(bus, envelope)


async def _handing_over(transport: CallTransport, call: Any, *given: Any) -> Any:
    if _is_now(RECORDED, _about(call)):
        _die()
    dies = _is_now(HANDED_OVER, _about(call))
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
    payloads = [message.data.decode() for message in messages]
    if any(_is_now(ENDED, payload) for payload in payloads):
        _die()
    await _handle(settlement, messages)
    if any(_is_now(SETTLED, payload) for payload in payloads if _has_outcome(payload)):
        _die()


def _has_outcome(payload: str) -> bool:
    return any(f'"event":"{name}"' in payload for name in OUTCOMES)


def _publishing(events: EventPublisher, event: Event | EncodedEvent) -> None:
    about = event.decoded() if isinstance(event, EncodedEvent) else event
    if event.NAME not in OUTCOMES:
        _publish(events, event)
        return
    if _is_now(EXECUTED, _about(about)):
        if "policy" in sys.argv:
            _die()
        _state(EXECUTED_FILE).touch()
        while _state(EXECUTED_FILE).exists():
            time.sleep(0.01)
    if getattr(about, "key", "") not in _written(FORGET):
        _publish(events, event)


if __name__ == "__main__":
    setattr(Ledger, "reserve", _reserving)  # noqa: B010
    setattr(FlowFollower, "commit", _committing)  # noqa: B010
    setattr(Bus, "store", _storing)  # noqa: B010
    setattr(CallTransport, "hand_over", _handing_over)  # noqa: B010
    setattr(SettlementConsumer, "handle_batch", _handling)  # noqa: B010
    setattr(EventPublisher, "publish", _publishing)  # noqa: B010
    sys.exit(run(sys.argv[1:]))
