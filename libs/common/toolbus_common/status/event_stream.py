"""How full the stream of events is, and whether its copies are complete."""

from enum import Enum

from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import StreamUse, use_of
from toolbus_common.nats.topology import EVENTS

WARNING, ALARM = 0.5, 0.9  # of the maximum size


class Level(Enum):
    """How `toolbus doctor` marks a result."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


async def event_stream(bus: Bus) -> tuple[str, Level] | None:
    """Return the state of the stream and its level; None if it cannot be read."""
    try:
        return described(await use_of(bus.client, EVENTS))
    except ToolbusError:
        return None


def described(use: StreamUse) -> tuple[str, Level]:
    """Return the state of the stream and its level."""
    copies = "1 copy" if use.replicas == 1 else f"{use.replicas} copies"
    size = f"{use.maximum / (1 << 30):.3g} GiB" if use.maximum > 0 else "no maximum"
    text = f"{use.fill:.0%} of {size}, {copies}"
    if use.fill >= WARNING:
        text += "; when it is full, every call is refused: run 'toolbus provision --events-gib'"
    if use.is_single_copy:
        text += "; one server has the only copy: run 'toolbus provision --replicas 3'"
    if use.lagging:
        text += f"; {use.lagging} not complete or not reachable: check that every NATS server runs"
    if use.fill > ALARM or use.is_single_copy:
        return text, Level.BAD
    return text, Level.WARNING if use.fill >= WARNING or use.lagging else Level.OK
