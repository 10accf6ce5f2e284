"""The page on which a person approves or rejects a call: HTML without a script. Pure."""

from html import escape
from time import gmtime, strftime

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import ApprovalState
from toolbus_common.web import html as webpage
from toolbus_common.web.json_view import readable
from toolbus_ingress.http.html_response import page
from toolbus_ingress.http.jsonrpc import Response

# The first button of a form is pressed by whoever ends a line of it: this one does nothing.
_NO_CHOICE = "<button disabled hidden></button>"


def sign_in(sentence: str = "", status: int = 200) -> Response:
    """The first page: it tells nothing about the call before it knows who reads."""
    return page(
        status,
        "A call waits for a person",
        f"{webpage.refusal(sentence)}<p>Show the call with a key that may approve.</p>"
        '<form method="post"><label>Key<input type="password" name="key" autocomplete="off" '
        'required autofocus></label><div class="choices"><button class="deed" name="wish" '
        'value="show">Show</button></div></form>',
    )


def decision(
    approval: ApprovalState, ticket: str, sentence: str = "", status: int = 200
) -> Response:
    """The call, and the two buttons. `ticket` says who reads, in a form nobody else can make."""
    return page(
        status,
        "Approve this call?",
        f"{webpage.refusal(sentence)}{_described(approval)}"
        f'<form method="post">{webpage.ticket(ticket)}{_NO_CHOICE}'
        '<label>Note, or the reason for a rejection<input name="note" maxlength="512"></label>'
        '<div class="choices"><button class="deed" name="wish" value="approve">Approve once'
        '</button><button name="wish" value="reject">Reject</button></div></form>',
    )


def ended(sentence: str, status: int = 200) -> Response:
    """There is nothing more to do here."""
    return page(status, "Approval", f"<p>{escape(sentence)}</p>")


def _described(approval: ApprovalState) -> str:
    rows = {
        "Tool": full_name(approval.server, approval.tool),
        "Method": approval.method,
        "Asked by the key": approval.key,
        "Because of": approval.cause,
        "Waits until": strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(approval.ends)),
        "SHA-256 of the arguments": approval.arguments_digest,
    }
    arguments = f"<h2>Its arguments</h2><pre>{escape(readable(approval.arguments))}</pre>"
    return webpage.described(rows) + arguments
