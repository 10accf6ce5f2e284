"""What every outcome says of its call, whichever room ended it."""

from time import time
from typing import Any

from toolbus_common.contracts import CallAdmitted
from toolbus_common.trace import trace_id


def about(call: CallAdmitted) -> dict[str, Any]:
    """The fields a `CallCompleted` or `CallFailed` takes from its call, as of now."""
    return {**about_call(call), "reserved": call.reserved}


def about_call(call: CallAdmitted) -> dict[str, Any]:
    """The fields any fact about a call takes from it, as of now."""
    return {
        "at": time(),
        "scope": call.scope,
        "call_id": call.call_id,
        "parent_id": call.parent_id,
        "trace_id": trace_id(call.traceparent),
        "key": call.key,
        "server": call.server,
        "tool": call.tool,
        "method": call.method,
    }
