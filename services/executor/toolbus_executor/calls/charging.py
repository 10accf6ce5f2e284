"""What a call costs by how it ended."""

from toolbus_common.access.pricing import charged
from toolbus_common.contracts import CallAdmitted, FinalReply, InputRequired, TaskCreated
from toolbus_common.errors import ToolbusError, UpstreamRefusedError


def charge_of(call: CallAdmitted, ending: FinalReply, kept: int = 0) -> int:
    """What an answer costs, with the bytes that are kept of it instead of told.

    A task's result is not there yet, so it costs what was held.
    """
    if isinstance(ending, InputRequired):
        return 0
    if not call.price or isinstance(ending, TaskCreated):
        return call.charge
    return charged(call.charge, call.price, len(ending.body) + kept)


def charge_of_failure(call: CallAdmitted, error: ToolbusError) -> int:
    """What is charged without a result: all that was held, unless the server itself said no."""
    if call.price and isinstance(error, UpstreamRefusedError):
        return charged(call.charge, call.price, 0)
    return call.charge
