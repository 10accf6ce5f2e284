"""Calls on their way to policy and to executor."""

from typing import Any

from toolbus_common.contracts import CallAdmitted, CallRequested, ProtocolFamily

_FIELDS = {
    "call_id": "c", "reply_to": "r", "server": "docs", "tool": "t",
    "family": ProtocolFamily.MODERN, "deadline": 1.0, "traceparent": "",
}  # fmt: skip


def requested_call(**fields: Any) -> CallRequested:
    """Return a call as ingress sends it to policy, with these fields changed."""
    return CallRequested(**{**_FIELDS, "key_digest": "p", **fields})


def admitted_call(**fields: Any) -> CallAdmitted:
    """Return a call as policy sends it to executor, with these fields changed."""
    return CallAdmitted(**{**_FIELDS, "customer": "acme", "key": "bot", **fields})
