"""How full the stream of events is."""

from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import StreamUse, use_of
from toolbus_common.nats.topology import EVENTS

ALARM = 0.5  # of the maximum size


async def event_stream(bus: Bus) -> tuple[str, bool] | None:
    """Return the state of the stream, and whether it is well; None if it cannot be read."""
    try:
        return described(await use_of(bus.client, EVENTS))
    except ToolbusError:
        return None


def described(use: StreamUse) -> tuple[str, bool]:
    """Return the state of the stream, and whether it is well."""
    share = use.stored / use.maximum if use.maximum > 0 else 0.0
    copies = "1 copy" if use.replicas == 1 else f"{use.replicas} copies"
    size = f"{use.maximum / (1 << 30):.3g} GiB" if use.maximum > 0 else "no maximum"
    text = f"{share:.0%} of {size}, {copies}"
    if share >= ALARM:
        text += "; when it is full, every call is refused: run 'toolbus provision --events-gib'"
    if use.is_single_copy:
        text += "; one server has the only copy: run 'toolbus provision --replicas 3'"
    return text, share < ALARM and not use.is_single_copy
