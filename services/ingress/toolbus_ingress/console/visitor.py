"""The person of a request: their session, rights and client of the REST APIs."""

from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request
from starlette.responses import Response

from toolbus_ingress.console import PREFIX
from toolbus_ingress.console.api_client import UNAUTHORIZED, ApiClient, ProblemError
from toolbus_ingress.console.responses import render
from toolbus_ingress.console.session import ConsoleSession, is_own_form
from toolbus_ingress.http.request_guard import check_content_length, read_request_body

MAX_FIELDS = 64
_FORM = b"application/x-www-form-urlencoded"


class SignInNeededError(Exception):
    """The browser has no session, or its credential is no longer valid."""


class ForeignFormError(Exception):
    """A form was not made for this session, so another site may have sent it."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in person. `form` has the fields of a submitted form, each once."""

    request: Request
    session: ConsoleSession
    api: ApiClient
    name: str
    role: str
    rights: frozenset[str]
    form: dict[str, str]

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page with the navigation of this person's rights."""
        return render(
            template,
            status,
            path=self.request.url.path,
            token=self.session.token,
            name=self.name,
            role=self.role,
            rights=self.rights,
            **{"error": "", "problem": None, **values},
        )


async def visitor(request: Request) -> Visitor:
    """Return the person of a request, and the fields of a form.

    Raises:
        SignInNeededError: the browser has no valid session.
        ForeignFormError: the form does not belong to the session.
        RejectedRequestError: the form is too large.

    """
    console = cast("Any", request.app)
    headers = console.endpoint.guard.headers(request.scope)
    session = console.cookie.read(headers)
    if session is None:
        raise SignInNeededError
    form: dict[str, str] = {}
    if request.method == "POST":
        form = await form_of(request)
        if not is_own_form(session, form.get("token", "")):
            raise ForeignFormError
    api = client_of(request, session.credential)
    try:
        caller = await api.get("/api/v1/self")
    except ProblemError as problem:
        if problem.status == UNAUTHORIZED:
            raise SignInNeededError from problem
        raise
    rights = frozenset(caller["rights"])
    return Visitor(request, session, api, caller["name"], caller["role"], rights, form)


SignedIn = Annotated[Visitor, Depends(visitor)]


def client_of(request: Request, credential: str) -> ApiClient:
    """Return a client of the REST APIs with a credential."""
    console = cast("Any", request.app)
    host = console.endpoint.guard.headers(request.scope).get(b"host", b"")
    return ApiClient(console.rest, host, credential, request.scope.get("client"))


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises `RejectedRequestError` if it is too large."""
    console = cast("Any", request.app)
    headers, largest = console.endpoint.guard.headers(request.scope), console.endpoint.largest_body
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _FORM:
        return {}
    check_content_length(headers, largest)
    body = await read_request_body(request.receive, largest)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def address(*parts: str) -> str:
    """Return the path of a page of the console; each part is one segment."""
    return "/".join((PREFIX, *(quote(part, safe="") for part in parts)))
