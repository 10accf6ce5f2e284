"""Elicitation of an approval: the request sent to a caller and its response (no I/O).

The form is defined by MCP 2026-07-28; ingress converts it for older clients.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallRequested, InputRequired
from toolbus_common.errors import ApprovalRejectedError
from toolbus_policy.approvals.model import Approval

STATE_PREFIX = "toolbus.approval."  # prefix of an approval's `requestState`; ingress seals it
ACCEPTED = "accept"
# Requests whose result may be `input_required` (MCP 2026-07-28).
ELICITATION_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})
REQUEST_NAME = "approval"  # name of the only entry of `inputRequests`

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class ApprovalResponse:
    """The elicitation response in a call: an approval's id and the action, or a server's state."""

    approval: str = ""
    action: str = ""
    state: str = ""

    def without_approval(self, call: CallRequested) -> CallRequested:
        """Return the call as its server receives it: without the response to the approval."""
        if not self.approval:
            return call
        members = _members(call.extra)
        for name in ("requestState", "inputResponses"):
            members.pop(name, None)
        extra = msgspec.json.encode(members).decode() if members else ""
        return call.model_copy(update={"extra": extra})


def parse_response(extra: str) -> ApprovalResponse:
    """Parse the response to an approval from `extra`, the request fields besides the arguments."""
    members = _members(extra) if extra else {}
    state = msgspec.json.decode(members["requestState"]) if "requestState" in members else ""
    if not isinstance(state, str) or not state.startswith(STATE_PREFIX):
        return ApprovalResponse(state=str(state))
    answer = _object(
        _object(msgspec.json.decode(members.get("inputResponses", b"{}"))), REQUEST_NAME
    )
    return ApprovalResponse(state.removeprefix(STATE_PREFIX), str(answer.get("action", "")))


def supports_url_elicitation(capabilities: str) -> bool:
    """Return whether the client declared elicitation in mode `url`."""
    return "url" in _object(_object(msgspec.json.decode(capabilities)), "elicitation")


def approval_elicitation(approval: Approval, page: str) -> InputRequired:
    """Return the reply that requests the client to open the approval page."""
    result = {
        "resultType": "input_required",
        "inputRequests": {REQUEST_NAME: url_elicitation(approval.server, approval.tool, page)},
        "requestState": f"{STATE_PREFIX}{approval.id}",
    }
    return InputRequired(msgspec.json.encode(result), approval.id)


def url_elicitation(server: str, tool: str, page: str) -> dict[str, Any]:
    """Return an entry of `inputRequests` that opens a page."""
    params = {
        "mode": "url",
        "message": f"{full_name(server, tool)} needs a person's approval. Open the page to approve "
        "or reject it.",
        "url": page,
    }
    return {"method": "elicitation/create", "params": params}


def rejection_error(approval: str, note: str) -> ApprovalRejectedError:
    """Return the error of a call that a person rejected."""
    reason = note or "no reason was given"
    return ApprovalRejectedError(
        f"A person rejected this call: {reason}. Do not repeat it unchanged.",
        approval=approval,
        note=note,
    )


def _object(value: Any, *path: str) -> dict[str, Any]:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
