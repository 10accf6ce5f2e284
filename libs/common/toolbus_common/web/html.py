"""HTML pages of all services: no scripts, one style. Pure."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape

from toolbus_common.web.json_view import visible

_STYLE = (
    ":root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--ground:#f1f3f5;"
    "--line:#d0d7de;--edge:#76808a;--deed:#0b5cab;--on-deed:#fff;--warn:#9a6700;--bad:#b3261e}"
    "@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--paper:#161b22;"
    "--ground:#0d1117;--line:#30363d;--edge:#7d8590;--deed:#58a6ff;--on-deed:#0d1117;"
    "--warn:#e3b341;--bad:#ff8078}}"
    "*{box-sizing:border-box}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:1rem;color:var(--ink);"
    "background:var(--ground)}"
    "header,main{max-width:40rem;margin:0 auto}"
    "header{padding:1.5rem 0 .75rem;font-weight:600;color:var(--soft)}"
    "main{padding:1.5rem clamp(1rem,5vw,2rem);background:var(--paper);"
    "border:1px solid var(--line);border-radius:.75rem}"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}"
    "h2{font-size:1rem;margin:0 0 .5rem}p{margin:0 0 1rem}"
    "main>:last-child{margin-bottom:0}a{color:var(--deed)}"
    "p,dd,pre{overflow-wrap:anywhere}"
    "dl{margin:0 0 1.5rem}dt{color:var(--soft);font-size:.9rem}dd{margin:0 0 .75rem}"
    "pre{background:var(--ground);border:1px solid var(--line);border-radius:.4rem;padding:1rem;"
    "margin:0 0 1.5rem;white-space:pre-wrap;font-size:.9rem}"
    "label{display:block;font-weight:600}"
    "input{display:block;width:100%;font:inherit;color:inherit;background:var(--paper);"
    "border:1px solid var(--edge);border-radius:.4rem;padding:.6rem;margin:.25rem 0 1rem}"
    ".choices{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0 0}"
    ".or{color:var(--soft);margin:1.25rem 0 0}.or+.choices{margin-top:.5rem}"
    "button{font:inherit;color:var(--ink);background:var(--paper);border:1px solid var(--edge);"
    "border-radius:.4rem;padding:.6rem 1.25rem;cursor:pointer}"
    "button.deed{color:var(--on-deed);background:var(--deed);border-color:var(--deed)}"
    ":focus-visible{outline:3px solid var(--deed);outline-offset:2px}"
    ".warning,.refusal{border-left:.3rem solid var(--warn);padding-left:.8rem}"
    ".refusal{border-color:var(--bad);font-weight:600}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()


def headers(*, leads_on: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the response headers of a page.

    `leads_on`: the response to its form redirects to another site. Browsers apply `form-action` to
    every redirect after a form, and the targets of another site's redirects are unknown here: such
    a page goes without it.
    """
    forms = "" if leads_on else "form-action 'self'; "
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; {forms}"
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return (
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        (
            "referrer-policy",
            "same-origin",
        ),  # with no-referrer, browsers send the form's origin as null
        ("cross-origin-opener-policy", "same-origin"),
    )


def document(title: str, body: str, head: str = "") -> bytes:
    """Return a whole page; `body` and `head` are HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · '
        'Toolbus</title><meta name="viewport" content="width=device-width"><meta name="robots" '
        f'content="noindex">{head}<style>{_STYLE}</style></head><body><header>Toolbus</header>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    ).encode()


def refusal(message: str) -> str:
    """Return an alert with the reason of a rejection; empty without one."""
    return f'<p class="refusal" role="alert">{escape(message)}</p>' if message else ""


def warning(message: str) -> str:
    """Return a warning paragraph."""
    return f'<p class="warning">{escape(message)}</p>'


def described(rows: Mapping[str, str]) -> str:
    """Return a description list; invisible characters are spelled out."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(visible(value))}</dd>" for name, value in rows.items()
    )
    return f"<dl>{items}</dl>"


def ticket(sealed: str) -> str:
    """Return the hidden field that carries the sealed state of a page."""
    return f'<input type="hidden" name="ticket" value="{escape(sealed)}">'
