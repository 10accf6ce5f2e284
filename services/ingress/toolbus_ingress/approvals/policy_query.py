"""Queries of approvers to policy. Only policy checks a key's right to approve, and decides."""

from toolbus_common.contracts import ApprovalsReply, ApproverRequest
from toolbus_common.errors import InvalidError
from toolbus_common.http_server.body import Receive
from toolbus_common.web.json_view import visible
from toolbus_ingress.http.request_guard import Headers, check_content_length, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint

LARGEST_BODY = 16 * 1024
SHOW, APPROVE, REJECT = "show", "approve", "reject"


async def ask_policy(
    endpoint: Endpoint, key_digest: str, action: str, approval: str, note: str = ""
) -> ApprovalsReply:
    """Show or decide one approval, or show all pending approvals (empty id).

    Raises `ToolbusError`.
    """
    if action not in (SHOW, APPROVE, REJECT):
        raise InvalidError("Unknown decision. Use approve or reject.")
    request = ApproverRequest(
        key_digest=key_digest, action=action, id=approval, note=visible(note.strip())
    )
    return await endpoint.service.requests.request(request, ApprovalsReply)


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """Read the body of a decision. Raises `RejectedRequestError`."""
    check_content_length(headers, LARGEST_BODY)
    return await read_request_body(receive, LARGEST_BODY)
