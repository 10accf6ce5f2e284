"""The command that signs somebody in to the administration: a code here, a browser anywhere."""

import http.client
import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer

from toolbus_cli.commands.shared import DEFAULT_STATE, StateDir
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import endpoint_of
from toolbus_cli.views.visible_text import printable
from toolbus_common.access.oauth_scopes import ADMINISTER, LOOK

SECONDS = 30.0
LONGEST_WAIT = 60.0  # between two questions
LARGEST = 64 * 1024
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
DOCUMENT = "/.well-known/oauth-protected-resource/api"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_NOBODY = (
    "Nobody signs in to administer there: give a rule under access a role "
    "(docs/how-to/administration-api.md)."
)


def login(
    *,
    url: Annotated[str, typer.Option(help="Where Toolbus is; else the one started here.")] = "",
    client: Annotated[
        str, typer.Option(help="A client made with 'toolbus clients add --public'.")
    ] = "toolbus",
    read_only: Annotated[bool, typer.Option("--read-only", help="Only to look.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Sign in to administer, as far as your role goes. Prints an access token for /api."""
    base = (url or endpoint_of(state_dir)).rstrip("/").removesuffix("/mcp")
    status, document = _asked(base, "GET", DOCUMENT)
    if status != http.client.OK:
        raise CommandError(_NOBODY)
    scope = LOOK if read_only else ADMINISTER
    form = {"client_id": client, "resource": str(document.get("resource")), "scope": scope}
    waiting = _given(_asked(base, "POST", "/oauth/device/code", form))
    page, code = waiting["verification_uri_complete"], waiting["user_code"]
    sys.stderr.write(printable(f"Open {page} and allow the code {code}.") + "\n")
    form = {"grant_type": DEVICE, "client_id": client, "device_code": waiting["device_code"]}
    token = awaited(lambda: _asked(base, "POST", "/oauth/token", form), waiting)
    sys.stdout.write(printable(token) + "\n")


def awaited(
    ask: Callable[[], tuple[int, dict[str, Any]]],
    waiting: dict[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The token, once somebody has allowed it. Raises `CommandError` when they do not."""
    pause = float(waiting.get("interval", 5))
    left = float(waiting.get("expires_in", 600))
    while left > 0:
        sleep(pause)
        left -= pause
        status, told = ask()
        if told.get("error") == "slow_down":
            pause = min(pause + 5, LONGEST_WAIT)
        elif told.get("error") != "authorization_pending":
            return str(_given((status, told))["access_token"])
    raise CommandError("Nobody allowed it in time; begin anew.")


def _given(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    status, told = answer
    if status != http.client.OK:
        why = told.get("error_description") or told.get("error") or f"answered {status}"
        raise CommandError(f"Toolbus gave no token: {why}")
    return told


def _asked(
    base: str, method: str, path: str, form: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    target = urlsplit(base)
    secure = target.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=SECONDS)
    try:
        connection.request(method, f"{target.path}{path}", urlencode(form or {}), _FORM)
        answer = connection.getresponse()
        told = json.loads(answer.read(LARGEST))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise CommandError(f"{base} cannot be asked ({error}); is Toolbus up there?") from error
    finally:
        connection.close()
    return answer.status, told if isinstance(told, dict) else {}
