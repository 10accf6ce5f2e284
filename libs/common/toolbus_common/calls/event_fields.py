"""Fields that all events about a call share, whichever service publishes them."""

from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.contracts import CallAdmitted, CallExtended, CallRequested
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.privacy.content_policy import recorded


def outcome_fields(call: CallAdmitted) -> dict[str, Any]:
    """Return the fields that `CallCompleted` and `CallFailed` share, with the current time."""
    return {**call_fields(call, call.customer, call.key), "reserved": call.reserved}


def extended(call: CallAdmitted, deadline: float) -> CallExtended:
    """Return the event that reports a later deadline of a call."""
    return CallExtended(
        id=f"{call.call_id}.extended.{int(deadline * 1000)}",
        **call_fields(call, call.customer, call.key),
        deadline=deadline,
        has_reservation=call.reserved,
    )


def result_fields(call: CallAdmitted, body: bytes) -> dict[str, Any]:
    """Return the fields of `CallCompleted` about the result.

    The digest is always included; the text and the user only if the text is recorded.
    """
    fields = {"result_digest": sha256(body).hexdigest()}
    if result := recorded(body, call.result_content):
        fields |= {"result": result, "user": call.user}
    return fields


def call_fields(call: CallAdmitted | CallRequested, customer: str, key: str) -> dict[str, Any]:
    """Return the fields of any event about a call, with the current time."""
    return {
        "at": time(),
        "customer": customer,
        "call_id": call.call_id,
        "parent_id": call.parent_id,
        "trace_id": trace_id(call.traceparent),
        "key": key,
        "server": call.server,
        "tool": call.tool,
        "method": call.method,
    }
