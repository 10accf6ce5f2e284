"""Command that signs an administrator in with a device code and a browser."""

import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, StateDir
from toolbus_cli.errors import CommandError
from toolbus_cli.http_client import OK, send
from toolbus_cli.state_dir import endpoint_of
from toolbus_common.access.oauth_scopes import ADMINISTER, LOOK
from toolbus_common.definitions.visible_text import printable

LONGEST_WAIT = 60.0  # between two token requests
LARGEST = 64 * 1024
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
DOCUMENT = "/.well-known/oauth-protected-resource/api"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_NO_SIGN_IN = (
    "Administrators cannot sign in at this gateway: no access rule has a role. Add one "
    "(docs/how-to/administration-api.md)."
)


def login(
    *,
    url: Annotated[
        str, typer.Option(help="The gateway's URL; default: the local installation.")
    ] = "",
    client: Annotated[
        str, typer.Option(help="The id of a client created with 'toolbus clients add --public'.")
    ] = "toolbus",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Request read access only.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Sign in as an administrator and print an access token for /api."""
    base = (url or endpoint_of(state_dir)).rstrip("/").removesuffix("/mcp")
    status, document = _request(base, "GET", DOCUMENT)
    if status != OK:
        raise CommandError(_NO_SIGN_IN)
    scope = LOOK if read_only else ADMINISTER
    form = {"client_id": client, "resource": str(document.get("resource")), "scope": scope}
    waiting = _given(_request(base, "POST", "/oauth/device/code", form))
    page, code = waiting["verification_uri_complete"], waiting["user_code"]
    sys.stderr.write(printable(f"Open {page} and confirm the code {code}.") + "\n")
    form = {"grant_type": DEVICE, "client_id": client, "device_code": waiting["device_code"]}
    token = awaited(lambda: _request(base, "POST", "/oauth/token", form), waiting)
    sys.stdout.write(printable(token) + "\n")


def awaited(
    request: Callable[[], tuple[int, dict[str, Any]]],
    waiting: dict[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until the code is confirmed and return the token.

    Raises:
        CommandError: the sign-in was rejected, or the code expired.

    """
    pause = float(waiting.get("interval", 5))
    left = float(waiting.get("expires_in", 600))
    while left > 0:
        sleep(pause)
        left -= pause
        status, result = request()
        if result.get("error") == "slow_down":
            pause = min(pause + 5, LONGEST_WAIT)
        elif result.get("error") != "authorization_pending":
            return str(_given((status, result))["access_token"])
    raise CommandError("The code was not confirmed in time; run the command again.")


def _given(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    status, result = answer
    if status != OK:
        why = result.get("error_description") or result.get("error") or f"HTTP {status}"
        raise CommandError(
            f"The sign-in failed: Toolbus returned no token ({why}). Run the command again."
        )
    return result


def _request(
    base: str, method: str, path: str, form: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    content = urlencode(form or {}).encode()
    try:
        answer = send(method, f"{base}{path}", body=content, headers=_FORM, max_bytes=LARGEST)
        body = json.loads(answer.body)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{base} cannot be reached ({error}); check the URL and that Toolbus is running."
        ) from error
    return answer.status, body if isinstance(body, dict) else {}
