"""Sign-in of people with an account: the console as an OAuth client of this gateway.

Accounts are local, or of a company's OpenID provider. The role is that of the person's access rule.
"""

import hmac
import secrets
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from time import time
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from toolbus_common.access.oauth_scopes import ADMINISTER, CONSOLE_CLIENT, CONSOLE_REDIRECT
from toolbus_common.base64url import encoded
from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.errors import ToolbusError
from toolbus_ingress.console import PREFIX
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect, render
from toolbus_ingress.console.session import SealedCookie
from toolbus_ingress.console.visitor import client_of
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import Claims

SECONDS = 20.0
ATTEMPT_SECONDS = 900  # a person may first have to sign in at the company's provider
COOKIE = "toolbus_console_sign_in"
OK = 200
LONGEST_TEXT = 512
_NOT_STARTED = (
    "This sign-in was not started in this browser, or took longer than 15 minutes. Start it again."
)
_NOT_ALLOWED = "You did not allow the console to act for you."
_DISABLED = "No access rule has a role, so accounts cannot sign in here. Use an admin key."
_FORM = "application/x-www-form-urlencoded"
router = APIRouter()


class SignInAttempt(Claims, frozen=True):
    """A sign-in that this browser has started, in a cookie."""

    state: str
    verifier: str
    expires: float


class _Tokens(msgspec.Struct):
    access_token: str = ""
    expires_in: int = 0
    error_description: str = ""


@router.get("/sign-in/account")
async def start(request: Request) -> Response:
    """Redirect to the authorization server of this gateway."""
    console = cast("Any", request.app)
    resource = console.endpoint.protected_resource
    if not resource.admin_enabled:
        return sign_in_form(request, _DISABLED, 404)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    query = {
        "response_type": "code",
        "client_id": CONSOLE_CLIENT,
        "redirect_uri": f"{resource.public_url}{CONSOLE_REDIRECT}",
        "resource": resource.admin_resource,
        "scope": ADMINISTER,
        "state": state,
        "code_challenge": encoded(sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    attempt = SignInAttempt(state, verifier, time() + ATTEMPT_SECONDS)
    cookie = _cookie_of(request).close(attempt, ATTEMPT_SECONDS)
    return redirect(f"{resource.public_url}/oauth/authorize?{urlencode(query)}", cookie)


@router.get(CONSOLE_REDIRECT.removeprefix(PREFIX))
async def finish(request: Request) -> Response:
    """Exchange the code of the authorization server for an access token, and begin a session."""
    console, query = cast("Any", request.app), request.query_params
    resource, attempt = console.endpoint.protected_resource, _attempt(request)
    state, issuer = query.get("state", ""), query.get("iss", "")
    if (
        attempt is None
        or not hmac.compare_digest(attempt.state.encode(), state.encode())
        or issuer != resource.public_url
    ):
        return sign_in_form(request, _NOT_STARTED, 403)
    if "code" not in query:
        return sign_in_form(request, _refusal(query), 403)
    form = {
        "grant_type": "authorization_code",
        "client_id": CONSOLE_CLIENT,
        "code": query["code"][:LONGEST_TEXT],
        "code_verifier": attempt.verifier,
        "redirect_uri": f"{resource.public_url}{CONSOLE_REDIRECT}",
    }
    status, tokens = await _posted(console.endpoint, "/oauth/token", form)
    if status != OK or not tokens.access_token:
        return sign_in_form(request, f"{tokens.error_description} Start it again.".strip(), 403)
    try:
        await client_of(request, tokens.access_token).get("/api/v1/self")
    except ProblemError as problem:
        return sign_in_form(request, problem.detail, problem.status)
    session = console.cookie.begin(tokens.access_token, tokens.expires_in, account=True)
    response = redirect(PREFIX, session)
    response.headers.append("set-cookie", _cookie_of(request).end())
    return response


async def end_grant(endpoint: Endpoint, token: str) -> None:
    """End the access that the person gave to the console, if the service can be reached."""
    with suppress(ToolbusError):  # the token expires within an hour anyway
        await _posted(endpoint, "/oauth/revoke", {"client_id": CONSOLE_CLIENT, "token": token})


def sign_in_form(request: Request, error: str = "", status: int = 200) -> Response:
    """Return the form for an admin key, with a link for accounts if they can sign in."""
    resource = cast("Any", request.app).endpoint.protected_resource
    href = f"{resource.public_url}{PREFIX}/sign-in/account" if resource.admin_enabled else ""
    return render("sign_in.html", status, error=error, href=href)


async def _posted(endpoint: Endpoint, path: str, form: dict[str, str]) -> tuple[int, _Tokens]:
    request = PageRequest(
        method="POST", path=path, headers={"content-type": _FORM}, body=urlencode(form).encode()
    )
    reply = await endpoint.service.requests.request(request, PageReply, SECONDS)
    return reply.status, msgspec.json.decode(reply.body or b"{}", type=_Tokens)


def _refusal(answer: Mapping[str, str]) -> str:
    """Return why the authorization server sent no code; `state` proves that the text is its own."""
    if answer.get("error") == "access_denied":
        return _NOT_ALLOWED
    return f"{answer.get('error_description', '')[:LONGEST_TEXT]} Start it again.".strip()


def _attempt(request: Request) -> SignInAttempt | None:
    headers = cast("Any", request.app).endpoint.guard.headers(request.scope)
    attempt = _cookie_of(request).open(headers, SignInAttempt)
    return attempt if attempt is not None and attempt.expires > time() else None


def _cookie_of(request: Request) -> SealedCookie:
    cookie = cast("Any", request.app).cookie
    return SealedCookie(cookie.sealer, cookie.secure, COOKIE)
