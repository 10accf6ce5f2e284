"""Calls in the forms in which policy and executor receive them."""

from typing import Any

from toolbus_common.contracts import CallAdmitted, CallRequested, ProtocolFamily

_FIELDS = {
    "call_id": "c", "reply_to": "r", "server": "docs", "tool": "t",
    "family": ProtocolFamily.MODERN, "deadline": 1.0, "traceparent": "",
}  # fmt: skip


def requested_call(**fields: Any) -> CallRequested:
    """Return a call in the form that ingress sends to policy, with these fields changed."""
    return CallRequested(**{**_FIELDS, "key_digest": "p", **fields})


def admitted_call(**fields: Any) -> CallAdmitted:
    """Return a call in the form that policy sends to executor, with these fields changed."""
    return CallAdmitted(**{**_FIELDS, "customer": "acme", "key": "bot", **fields})
