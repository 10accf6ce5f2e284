"""Requests of commands to the administration API of the gateway of a context."""

import json
import ssl
from typing import Any
from urllib.parse import quote

from toolbus_cli.errors import CommandError
from toolbus_cli.http_client import send
from toolbus_cli.remote.contexts import Context

BASE = "/api/v1"
SECONDS = 30.0
LARGEST = 64 * 1024 * 1024
PAGE = 1000  # entries
UNAUTHORIZED, ERROR = 401, 400


def request(
    context: Context, method: str, path: str, body: bytes | None = None, **headers: str
) -> Any:
    """Send one request and return the JSON of its response.

    `path` is below `/api/v1`; underscores in names of headers are hyphens. Raises `CommandError`.
    """
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent |= {"Authorization": f"Bearer {context.admin_key}", "Accept": "application/json"}
    url = f"{context.url}{BASE}{path}"
    try:
        answer = send(
            method, url, body=body, headers=sent, seconds=SECONDS, max_bytes=LARGEST,
            tls=_tls(context),
        )  # fmt: skip
        received = json.loads(answer.body)
    except TimeoutError as error:
        raise CommandError(
            f"{context.url} did not respond in {SECONDS:.0f} s; check the gateway, and repeat."
        ) from error
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{context.url} cannot be reached, or is not a gateway ({error}); check the URL of the "
            f"context '{context.name}' ('toolbus context list') and that Toolbus is running."
        ) from error
    if answer.status >= ERROR:
        raise _problem(context, answer.status, received)
    return received


def pages(context: Context, path: str) -> list[dict[str, Any]]:
    """Return the items of all pages of a list. Raises `CommandError`."""
    items: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = request(context, "GET", f"{path}?limit={PAGE}&after={quote(after)}")
        items += page["items"]
        after = page.get("next")
    return items


def _tls(context: Context) -> ssl.SSLContext | None:
    if not context.ca:
        return None
    try:
        return ssl.create_default_context(cafile=context.ca)
    except (OSError, ssl.SSLError) as error:
        raise CommandError(
            f"'{context.ca}' of the context '{context.name}' cannot be read as certificates "
            f"({error}); add the context again with another --ca."
        ) from error


def _problem(context: Context, status: int, received: Any) -> CommandError:
    """Return the error of a response that is a problem (RFC 9457)."""
    problem = received if isinstance(received, dict) else {}
    if status == UNAUTHORIZED:
        return CommandError(
            f"{context.url} rejects the admin key of the context '{context.name}'; add the context "
            "again with a valid key."
        )
    lines = [
        f"{each.get('location', '')}: {each.get('reason', '')}"
        for each in problem.get("errors", ())
        if isinstance(each, dict)
    ]
    summary = f"{problem.get('detail') or f'HTTP {status}'} {problem.get('fix', '')}".strip()
    text = "\n".join((*lines, summary))
    return CommandError("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))
