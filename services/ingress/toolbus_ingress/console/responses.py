"""The console's pages as HTTP responses: templates, security headers, and redirects."""

import json
import secrets
from time import gmtime, strftime
from typing import Any

from starlette.responses import Response

from toolbus_common.web import html
from toolbus_common.web.json_view import readable, visible

LONGEST_VALUE = 160  # characters in a list
_TEMPLATES = "toolbus_ingress.console"
_SECURITY = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)


def render(template: str, status: int = 200, *, cookie: str = "", **values: Any) -> Response:
    """Return a page. Scripts and styles are allowed only with the nonce of the response."""
    nonce = secrets.token_urlsafe(16)
    body = html.render(f"{_TEMPLATES}/{template}", nonce=nonce, **FORMATS, **values)
    response = Response(body, status, media_type="text/html")
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    )
    response.headers["content-security-policy"] = policy
    for name, value in _SECURITY:
        response.headers[name] = value
    if cookie:
        response.headers["set-cookie"] = cookie
    return response


def redirect(path: str, cookie: str = "") -> Response:
    """Return a redirect (303) that the browser follows with GET."""
    headers = {"location": path, "cache-control": "no-store"}
    if cookie:
        headers["set-cookie"] = cookie
    return Response(status_code=303, headers=headers)


def download(body: bytes, name: str, media_type: str) -> Response:
    """Return a file that the browser stores."""
    response = Response(body, media_type=media_type)
    response.headers["content-security-policy"] = "default-src 'none'; sandbox"
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    for header, value in _SECURITY:
        response.headers[header] = value
    return response


def dollars(microdollars: float) -> str:
    """Return an amount of micro-dollars as text, such as `$1.20`."""
    amount = microdollars / 1_000_000
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def day_and_time(seconds: float) -> str:
    """Return a Unix time as text in UTC."""
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(seconds))


def _pretty(value: Any) -> Any:
    return html.lines(json_text(value))


def _pretty_json(text: str) -> Any:
    return html.lines(readable(text))


def _compact(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _editable_json(value: Any) -> Any:
    return html.editable(json_text(value))


def json_text(value: Any) -> str:
    """Return JSON in which invisible characters are escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(c if c == "\n" or c == visible(c) else json.dumps(c)[1:-1] for c in text)


FORMATS: dict[str, Any] = {
    "dollars": dollars,
    "day_and_time": day_and_time,
    "pretty": _pretty,
    "pretty_json": _pretty_json,
    "compact": _compact,
    "editable_json": _editable_json,
    "editable": html.editable,
    "lines": html.lines,
    "number": "{:,}".format,
}
