"""HTML pages: Jinja2 templates without scripts, with a common layout and style.

The name of a template is `<package>/<file>`: a file in the folder `templates` of the package. A
process imports Jinja2 when it renders its first page. It compiles each template once.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from toolbus_common.web.json_view import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_LAYOUT, _STYLE = "toolbus_common.web/base.html", "toolbus_common.web/style.css"


def load() -> None:
    """Import Jinja2 and compile the layout, which takes about 0.1 s the first time.

    A service calls this function in a thread before it renders pages, so that other requests do not
    wait.
    """
    _environment().get_template(_LAYOUT)
    _style_hash()


def render(template: str, *, error: str = "", **values: object) -> str:
    """Return a page. Each value is escaped, and its invisible characters are shown as codes.

    `error` is shown as an alert above the content. Raises `jinja2.UndefinedError` if a value that
    the template uses is missing.
    """
    return _environment().get_template(template).render(error=error, **values)


def lines(text: str) -> "Markup":
    """Return text of several lines for `pre`, with invisible characters as codes."""
    from markupsafe import Markup, escape  # noqa: PLC0415 - few processes render pages

    return Markup("\n").join(escape(visible(line)) for line in text.split("\n"))


def editable(text: str) -> "Markup":
    """Return text for a form field that is sent back unchanged, so nothing is shown as a code."""
    from markupsafe import escape  # noqa: PLC0415 - few processes render pages

    return escape(text)


def headers(*, leads_on: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the response headers of a page.

    `leads_on` is set if submitting the page's form redirects to another site. Browsers apply the
    directive `form-action` to all redirects after a form. The further redirects of that site are
    not known, so the directive is omitted.
    """
    forms = "" if leads_on else "form-action 'self'; "
    policy = (
        f"default-src 'none'; style-src 'sha256-{_style_hash()}'; {forms}"
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return (
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        # With `no-referrer`, browsers would send `null` as the origin of the form.
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    )


@cache
def _style_hash() -> str:
    return b64encode(sha256(render(_STYLE).encode()).digest()).decode()


@cache
def _environment() -> "Environment":
    from jinja2 import (  # noqa: PLC0415 - few processes render pages
        Environment,
        FunctionLoader,
        StrictUndefined,
    )

    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _source(template: str) -> str:
    package, _, file = template.partition("/")
    return files(package).joinpath("templates", file).read_text("utf-8")


def _shown(value: Any) -> Any:
    """Return the text with its invisible characters shown as codes.

    The escaped text of a macro is returned unchanged.
    """
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
