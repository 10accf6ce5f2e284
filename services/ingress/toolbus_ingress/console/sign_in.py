"""Sign-in with an admin key or a one-time link, and sign-out."""

from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from toolbus_common.contracts import SignInLinkQuery, SignInLinkReply
from toolbus_ingress.console import PREFIX
from toolbus_ingress.console.account import end_grant, sign_in_form
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect, render
from toolbus_ingress.console.visitor import SignedIn, client_of, form_of

SECONDS = 10.0
_USED = (
    "This link was used already, or is older than 15 minutes. Print a new one with "
    "'toolbus console', or sign in with an admin key."
)
router = APIRouter()


@router.get("/sign-in")
async def show_sign_in(request: Request) -> Response:
    """Return the form for an admin key, and a link for a person's account."""
    return sign_in_form(request)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Sign in with an admin key."""
    key = (await form_of(request)).get("key", "").strip()
    return await _begin(request, key, linked=False)


@router.get("/link/{code}")
async def show_link(code: str) -> Response:
    """Return a page with one button, so that a program that fetches the link does not use it."""
    return render("link.html", code=code)


@router.post("/link/{code}")
async def use_link(request: Request, code: str) -> Response:
    """Sign in with a link, once."""
    endpoint = cast("Any", request.app).endpoint
    reply = await endpoint.service.requests.request(
        SignInLinkQuery(code=code[:256]), SignInLinkReply, SECONDS
    )
    if not reply.secret:
        return sign_in_form(request, _USED, 403)
    return await _begin(request, reply.secret, linked=True)


@router.post("/sign-out")
async def sign_out(visitor: SignedIn) -> Response:
    """End the session. A key that was made for a link is revoked."""
    if visitor.session.linked:
        with suppress(ProblemError):  # the role may not revoke it; it expires the next day
            await visitor.api.send("POST", f"/api/v1/admins/{quote(visitor.name)}/revoke")
    if visitor.session.account:
        await end_grant(cast("Any", visitor.request.app).endpoint, visitor.session.credential)
    return redirect(f"{PREFIX}/sign-in", cast("Any", visitor.request.app).cookie.end())


async def _begin(request: Request, key: str, *, linked: bool) -> Response:
    try:
        await client_of(request, key).get("/api/v1/self")
    except ProblemError as problem:
        text = f"{problem.detail} Enter an admin key: it begins with tba_."
        return sign_in_form(request, text, problem.status)
    return redirect(PREFIX, cast("Any", request.app).cookie.begin(key, linked=linked))
