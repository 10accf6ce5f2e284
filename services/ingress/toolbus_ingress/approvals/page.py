"""The page on which a person approves or rejects a call."""

from time import gmtime, strftime

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import ApprovalState
from toolbus_common.web.json_view import readable
from toolbus_ingress.http.html_response import page
from toolbus_ingress.http.jsonrpc import Response


def sign_in(error: str = "", status: int = 200) -> Response:
    """Return the first page. It does not show the call, because no key has been checked yet."""
    return page(status, "toolbus_ingress.approvals/key.html", error)


def decision(approval: ApprovalState, ticket: str, error: str = "", status: int = 200) -> Response:
    """Return the page with the call and the two buttons; `ticket` is a sealed `TicketClaims`."""
    return page(
        status,
        "toolbus_ingress.approvals/decision.html",
        error,
        approval=approval,
        tool=full_name(approval.server, approval.tool),
        expires=strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(approval.ends)),
        arguments=readable(approval.arguments).split("\n"),
        ticket=ticket,
    )


def message(text: str, status: int = 200) -> Response:
    """Return a page with a message and no further action."""
    return page(status, "toolbus_common.web/message.html", title="Approval", message=text)
