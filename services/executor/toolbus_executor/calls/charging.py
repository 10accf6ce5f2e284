"""Charge of a call, which depends on its outcome."""

from toolbus_common.access.pricing import charged
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    FinalReply,
    InputRequired,
    TaskCreated,
)
from toolbus_common.errors import ToolbusError, UpstreamRefusedError
from toolbus_executor.mcp_messages.result_mapping import final_reply_of


def charge_of(call: CallAdmitted, reply: FinalReply, stored_bytes: int = 0) -> int:
    """Return the charge of a result.

    `stored_bytes` is the number of its bytes that were stored instead of sent. A created task costs
    the reserved amount, because its result does not exist yet.
    """
    if isinstance(reply, InputRequired):
        return 0
    if not call.price or isinstance(reply, TaskCreated):
        return call.charge
    return charged(call.charge, call.price, len(reply.body) + stored_bytes)


def charge_of_failure(call: CallAdmitted, error: ToolbusError) -> int:
    """Return the charge of a call without a result.

    If the server rejected the call, the charge is the price of an empty result.
    """
    if call.price and isinstance(error, UpstreamRefusedError):
        return charged(call.charge, call.price, 0)
    return call.charge


def charge_of_withheld(call: CallAdmitted, withheld: bytes | ToolbusError) -> int:
    """Return the charge of an executed call whose result or error a guard withholds."""
    if isinstance(withheld, ToolbusError):
        return charge_of_failure(call, withheld)
    try:
        reply, _ = final_reply_of(withheld, call)
    except (ToolbusError, ValueError):
        reply = CallResult(withheld)
    return charge_of(call, reply)
