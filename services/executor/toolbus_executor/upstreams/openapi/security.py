"""Credentials of an API: added to requests by security scheme, redacted in responses."""

import base64
from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import quote

from toolbus_common.openapi import Scheme
from toolbus_executor.upstreams.openapi.parameter_encoding import ArgumentError, Pairs

SHORTEST_SECRET = 6  # characters; a shorter secret would match in most texts
STRUCK = b"(secret)"


class Writable(Protocol):
    """A request to which credentials can be added."""

    query: Pairs
    headers: list[tuple[str, str]]
    cookies: Pairs


class Credentials:
    """The configured credentials for the security schemes of one API."""

    def __init__(
        self, values: Mapping[str, str], schemes: Mapping[str, Scheme], headers: Mapping[str, str]
    ) -> None:
        self._values = values
        self._schemes = schemes
        self._own = {
            location: {
                quote(each.name, safe="") for each in schemes.values() if each.place == location
            }
            for location in ("query", "cookie")
        }
        self._headers = {name.lower() for name in headers}
        texts = [*values.values(), *headers.values(), *map(_in_basic, values.values())]
        words = {word for each in texts for word in (each, each.rpartition(" ")[2])}
        self._secrets = sorted(
            (word.encode() for word in words if len(word) >= SHORTEST_SECRET), key=len, reverse=True
        )

    @property
    def unknown(self) -> dict[str, str]:
        """The credentials whose security scheme the document does not have, with the reasons."""
        known = ", ".join(self._schemes) or "none"
        return {
            f"credentials.{name}": f"the document has no such security scheme; it has: {known}"
            for name in self._values
            if name not in self._schemes
        }

    def refuse_set(self, query: Pairs, cookies: Pairs) -> None:
        """Raise `ArgumentError` if an argument has the position of a credential."""
        for pairs, location in ((query, "query"), (cookies, "cookie")):
            taken = {name for name, _ in pairs} & self._own[location]
            if taken:
                raise ArgumentError(f"{min(taken)} is set by Toolbus and cannot be an argument")

    def add(self, wanted: Iterable[tuple[str, ...]], request: Writable) -> None:
        """Add the credentials of the first alternative whose credentials are all configured."""
        for alternative in wanted:
            if all(name in self._values and name in self._schemes for name in alternative):
                for name in alternative:
                    self._put(self._schemes[name], self._values[name], request)
                return

    def struck(self, text: bytes) -> bytes:
        """Return the text with all credentials redacted."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, STRUCK)
        return text

    def _put(self, scheme: Scheme, value: str, request: Writable) -> None:
        if scheme.place == "query":
            request.query.append((quote(scheme.name, safe=""), quote(value, safe="")))
        elif scheme.place == "cookie":
            request.cookies.append((quote(scheme.name, safe=""), quote(value, safe="")))
        elif scheme.name.lower() not in self._headers:
            sign = {"bearer": "Bearer ", "basic": "Basic "}.get(scheme.place, "")
            shown = _in_basic(value) if scheme.place == "basic" else value
            request.headers.append((scheme.name, sign + shown))


def _in_basic(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
