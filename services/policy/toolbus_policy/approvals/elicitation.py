"""How a caller is shown the page of an approval, and what it brings back. Pure.

The form is that of MCP 2026-07-28; ingress turns it into what older clients understand.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallRequested, InputRequired
from toolbus_common.errors import ApprovalRejectedError
from toolbus_policy.approvals.model import Approval

STATE = "toolbus.approval."  # what a state of ours begins with; ingress seals it
ACCEPTED = "accept"
# Requests whose answer may be a question (MCP 2026-07-28).
ASKABLE = frozenset({"tools/call", "prompts/get", "resources/read"})
QUESTION = "approval"  # what the one question is called

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Brought:
    """What a call brings along: our approval and what was answered, or a state of its server's."""

    approval: str = ""
    action: str = ""
    state: str = ""

    def without_ours(self, call: CallRequested) -> CallRequested:
        """The call as its server may see it."""
        if not self.approval:
            return call
        members = _members(call.extra)
        for name in ("requestState", "inputResponses"):
            members.pop(name, None)
        extra = msgspec.json.encode(members).decode() if members else ""
        return call.model_copy(update={"extra": extra})


def brought(extra: str) -> Brought:
    """Read what travels beside the arguments."""
    members = _members(extra) if extra else {}
    state = msgspec.json.decode(members["requestState"]) if "requestState" in members else ""
    if not isinstance(state, str) or not state.startswith(STATE):
        return Brought(state=str(state))
    answer = _object(_object(msgspec.json.decode(members.get("inputResponses", b"{}"))), QUESTION)
    return Brought(state.removeprefix(STATE), str(answer.get("action", "")))


def can_open_pages(capabilities: str) -> bool:
    """Whether the client declared elicitation in the mode `url`."""
    return "url" in _object(_object(msgspec.json.decode(capabilities)), "elicitation")


def question(approval: Approval, page: str) -> InputRequired:
    """The one question: open the page."""
    asked = {
        "resultType": "input_required",
        "inputRequests": {QUESTION: page_question(approval.server, approval.tool, page)},
        "requestState": f"{STATE}{approval.id}",
    }
    return InputRequired(msgspec.json.encode(asked))


def page_question(server: str, tool: str, page: str) -> dict[str, Any]:
    """A page to open, as an entry of `inputRequests`."""
    params = {
        "mode": "url",
        "message": f"{full_name(server, tool)} needs a person's approval. Open the page to have it "
        "decided.",
        "url": page,
    }
    return {"method": "elicitation/create", "params": params}


def refusal(approval: str, note: str) -> ApprovalRejectedError:
    """What a person's no is told with."""
    reason = note or "no reason was given"
    return ApprovalRejectedError(
        f"A person refused this call: {reason}. Do not repeat it as it is.",
        approval=approval,
        note=note,
    )


def _object(value: Any, *path: str) -> dict[str, Any]:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
