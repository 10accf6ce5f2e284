"""Strict parser of HTTP requests from the bus, and builders of responses."""

from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import PageReply, PageRequest
from toolbus_oauth.web.errors import OAuthError, invalid

MAX_FIELDS = 40
FORM = "application/x-www-form-urlencoded"
NO_STORE = (("cache-control", "no-store"), ("pragma", "no-cache"))
CACHEABLE = ("cache-control", "public, max-age=60")
Fields = dict[str, str]
# Error codes for rejected credentials; ingress counts them by the client's address.
REJECTING = (
    "invalid_client", "invalid_grant", "invalid_dpop_proof", "invalid_token", "unauthorized_client",
    "access_denied",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """HTTP request in which each parameter occurs at most once."""

    page: PageRequest

    @cached_property
    def query(self) -> Fields:
        """The parameters of the query. Raises `OAuthError`."""
        return fields_of(self.page.query)

    @cached_property
    def form(self) -> Fields:
        """The parameters of the body. Raises `OAuthError`."""
        content_type = self.page.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != FORM:
            raise invalid(f"The content type must be {FORM}.")
        return fields_of(_text(self.page.body))

    @cached_property
    def json(self) -> dict[str, Any]:
        """The JSON object in the body. Raises `OAuthError`."""
        try:
            return strict_json.members(self.page.body)
        except strict_json.StrictJSONError as error:
            raise invalid(f"The body must be a JSON object; it is {error}.") from error

    @cached_property
    def cookies(self) -> Fields:
        """The cookies of the request; empty if the header is malformed."""
        try:
            found = SimpleCookie(self.page.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in found.items()}

    @property
    def basic(self) -> tuple[str, str] | None:
        """The client id and secret of the Basic header, or None without such a header.

        Raises `OAuthError` if the header is malformed.
        """
        scheme, _, credentials = self.page.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, secret = (
                b64decode(credentials.strip(), validate=True).decode().partition(":")
            )
        except ValueError:
            colon = ""
        if not colon:
            raise OAuthError(
                "invalid_client",
                "The Authorization header is malformed; send Basic credentials (RFC 6749 2.3.1).",
                401,
            )
        return unquote_plus(name), unquote_plus(secret)


Handler = Callable[[Request], Awaitable[PageReply]]


def fields_of(text: str) -> Fields:
    """Parse parameters by name. Raises `OAuthError` for duplicate or too many parameters."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise invalid("The parameters are malformed, or there are too many.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise invalid("A parameter occurs twice; send each parameter once.")
    return found


def json_response(status: int, data: Any, *headers: tuple[str, str]) -> PageReply:
    """Return a JSON response that must not be cached."""
    shown = (("content-type", "application/json"), *NO_STORE, *headers)
    return PageReply(status=status, headers=shown, body=msgspec.json.encode(data))


def error_response(error: OAuthError) -> PageReply:
    """Return an error response in JSON (RFC 6749 section 5.2)."""
    challenge = (("www-authenticate", 'Basic realm="toolbus"'),) if error.status == 401 else ()  # noqa: PLR2004
    body = {"error": error.code, "error_description": error.message}
    response = json_response(error.status, body, *challenge, *error.headers)
    return (
        response.model_copy(update={"rejected": error.code})
        if error.code in REJECTING
        else response
    )


def cacheable_response(document: dict[str, Any]) -> PageReply:
    """Return a public JSON document that may be cached for a minute."""
    headers = (("content-type", "application/json"), CACHEABLE)
    return PageReply(status=200, headers=headers, body=msgspec.json.encode(document))


def redirect_response(url: str, *cookies: str) -> PageReply:
    """Return a redirect (303) that the browser follows with GET."""
    set_cookies = tuple(("set-cookie", cookie) for cookie in cookies)
    headers = (("location", url), ("referrer-policy", "no-referrer"), *NO_STORE, *set_cookies)
    return PageReply(status=303, headers=headers)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise invalid("The body is not valid UTF-8; encode it as UTF-8.") from error
