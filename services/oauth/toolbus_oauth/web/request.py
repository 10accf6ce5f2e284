"""One request as it came over the bus, read strictly; and answers to it. Pure."""

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

MOST_FIELDS = 40
FORM = "application/x-www-form-urlencoded"
NO_STORE = (("cache-control", "no-store"), ("pragma", "no-cache"))
MAY_KEEP = ("cache-control", "public, max-age=60")
Fields = dict[str, str]
# Refusals of credentials, which ingress counts by the client's address.
REJECTING = (
    "invalid_client", "invalid_grant", "invalid_dpop_proof", "invalid_token", "unauthorized_client",
    "access_denied",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request; each parameter was given once."""

    asked: PageRequest

    @cached_property
    def query(self) -> Fields:
        """The parameters of the query. Raises `OAuthError`."""
        return fields_of(self.asked.query)

    @cached_property
    def form(self) -> Fields:
        """The parameters of the body. Raises `OAuthError`."""
        told = self.asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        if told != FORM:
            raise invalid(f"Send the parameters as {FORM}.")
        return fields_of(_text(self.asked.body))

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body's object. Raises `OAuthError`."""
        try:
            return strict_json.members(self.asked.body)
        except strict_json.StrictJSONError as error:
            raise invalid(f"The body must be a JSON object; it is {error}.") from error

    @cached_property
    def cookies(self) -> Fields:
        """What the browser sends back."""
        try:
            found = SimpleCookie(self.asked.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in found.items()}

    @property
    def basic(self) -> tuple[str, str] | None:
        """A client's name and secret in the header. Raises `OAuthError` when it cannot be read."""
        scheme, _, told = self.asked.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, secret = b64decode(told.strip(), validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise OAuthError("invalid_client", "The Authorization header cannot be read.", 401)
        return unquote_plus(name), unquote_plus(secret)


Handler = Callable[[Request], Awaitable[PageReply]]


def fields_of(text: str) -> Fields:
    """Parameters by name. Raises `OAuthError` when one is there twice."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise invalid("The parameters cannot be read, or there are too many.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise invalid("A parameter is there twice; give each once.")
    return found


def told_json(status: int, data: Any, *headers: tuple[str, str]) -> PageReply:
    """An answer for programs, which nobody may keep."""
    shown = (("content-type", "application/json"), *NO_STORE, *headers)
    return PageReply(status=status, headers=shown, body=msgspec.json.encode(data))


def told_error(error: OAuthError) -> PageReply:
    """A refusal for programs."""
    challenge = (("www-authenticate", 'Basic realm="toolbus"'),) if error.status == 401 else ()  # noqa: PLR2004
    told = {"error": error.code, "error_description": error.sentence}
    answer = told_json(error.status, told, *challenge, *error.headers)
    return answer.model_copy(update={"rejected": error.code}) if error.code in REJECTING else answer


def kept(document: dict[str, Any]) -> PageReply:
    """A document that is the same for everybody, and for a while."""
    headers = (("content-type", "application/json"), MAY_KEEP)
    return PageReply(status=200, headers=headers, body=msgspec.json.encode(document))


def redirected(url: str, *cookies: str) -> PageReply:
    """Send a browser on, with GET."""
    set_cookies = tuple(("set-cookie", cookie) for cookie in cookies)
    headers = (("location", url), ("referrer-policy", "no-referrer"), *NO_STORE, *set_cookies)
    return PageReply(status=303, headers=headers)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise invalid("The body is not UTF-8.") from error
