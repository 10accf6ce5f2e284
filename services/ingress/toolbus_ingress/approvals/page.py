"""The page on which a person approves or rejects a call: HTML without scripts. Pure."""

from html import escape
from time import gmtime, strftime

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import ApprovalState
from toolbus_common.web import html as webpage
from toolbus_common.web.json_view import readable
from toolbus_ingress.http.html_response import page
from toolbus_ingress.http.jsonrpc import Response

# Enter in a text field presses the first button of a form: this one does nothing.
_NO_CHOICE = "<button disabled hidden></button>"


def sign_in(error: str = "", status: int = 200) -> Response:
    """Return the first page, which shows nothing of the call before the key is checked."""
    return page(
        status,
        "A call is waiting for approval",
        f"{webpage.refusal(error)}<p>Enter a key that may approve calls.</p>"
        '<form method="post"><label>Key<input type="password" name="key" autocomplete="off" '
        'required autofocus></label><div class="choices"><button class="deed" name="action" '
        'value="show">Show</button></div></form>',
    )


def decision(approval: ApprovalState, ticket: str, error: str = "", status: int = 200) -> Response:
    """Return the page with the call and the two buttons; `ticket` is the sealed permission."""
    return page(
        status,
        "Approve this call?",
        f"{webpage.refusal(error)}{_details(approval)}"
        f'<form method="post">{webpage.ticket(ticket)}{_NO_CHOICE}'
        '<label>Note, or the reason for a rejection<input name="note" maxlength="512"></label>'
        '<div class="choices"><button class="deed" name="action" value="approve">Approve once'
        '</button><button name="action" value="reject">Reject</button></div></form>',
    )


def message(text: str, status: int = 200) -> Response:
    """Return a page with a message and no further action."""
    return page(status, "Approval", f"<p>{escape(text)}</p>")


def _details(approval: ApprovalState) -> str:
    rows = {
        "Tool": full_name(approval.server, approval.tool),
        "Method": approval.method,
        "Requested by key": approval.key,
        "Reason": approval.cause,
        "Expires": strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(approval.ends)),
        "SHA-256 of the arguments": approval.arguments_digest,
    }
    arguments = f"<h2>Arguments</h2><pre>{escape(readable(approval.arguments))}</pre>"
    return webpage.described(rows) + arguments
