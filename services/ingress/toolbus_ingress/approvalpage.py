"""The page on which a person approves or rejects a call: HTML without a script. Pure."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from time import gmtime, strftime

from toolbus_common.contracts import ApprovalTold
from toolbus_common.grants import full_name
from toolbus_common.readable import readable, visible
from toolbus_ingress.jsonrpc import Response

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f3f3f3;padding:1rem;overflow:auto;white-space:pre-wrap}"
    "dt{font-weight:600}dd{margin:0 0 .5rem}input{width:100%;padding:.4rem;margin:.2rem 0 1rem}"
    "button{padding:.5rem 1.5rem;margin-right:1rem}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # without one, browsers hide the form's origin from us
    (b"cross-origin-opener-policy", b"same-origin"),
)


def sign_in(sentence: str = "", status: int = 200) -> Response:
    """The first page: it tells nothing about the call before it knows who reads."""
    told = f"<p><strong>{escape(sentence)}</strong></p>" if sentence else ""
    return _page(
        status,
        "A call waits for a person",
        f"{told}<p>Show the call with a key that may approve.</p>"
        '<form method="post"><label>Key<input type="password" name="key" autocomplete="off" '
        'required></label><button name="wish" value="show">Show</button></form>',
    )


def decision(
    approval: ApprovalTold, ticket: str, sentence: str = "", status: int = 200
) -> Response:
    """The call, and the two buttons. `ticket` says who reads, in a form nobody else can make."""
    told = f"<p><strong>{escape(sentence)}</strong></p>" if sentence else ""
    return _page(
        status,
        "Approve this call?",
        f"{told}{_described(approval)}"
        f'<form method="post"><input type="hidden" name="ticket" value="{escape(ticket)}">'
        '<label>Note, or the reason for a rejection<input name="note" maxlength="512"></label>'
        '<button name="wish" value="approve">Approve once</button>'
        '<button name="wish" value="reject">Reject</button></form>',
    )


def ended(sentence: str, status: int = 200) -> Response:
    """There is nothing more to do here."""
    return _page(status, "Approval", f"<p>{escape(sentence)}</p>")


def _described(approval: ApprovalTold) -> str:
    rows = {
        "Tool": full_name(approval.server, approval.tool),
        "Method": approval.method,
        "Asked by the key": approval.key,
        "Because of": approval.cause,
        "Waits until": strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(approval.ends)),
        "SHA-256 of the arguments": approval.arguments_digest,
    }
    told = "".join(
        f"<dt>{name}</dt><dd>{escape(visible(value))}</dd>" for name, value in rows.items()
    )
    return f"<dl>{told}</dl><pre>{escape(readable(approval.arguments))}</pre>"


def _page(status: int, title: str, body: str) -> Response:
    document = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="robots" '
        f'content="noindex"><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}'
        "</body></html>"
    )
    return Response(status, document.encode(), _HEADERS)
