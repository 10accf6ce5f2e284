"""Credentials put where an operation's security schemes want them, and taken out of answers."""

import base64
from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import quote

from toolbus_common.openapi import Scheme
from toolbus_executor.upstreams.openapi.parameter_encoding import ArgumentError, Pairs

SHORTEST_SECRET = 6  # characters; a shorter one is found in every text
STRUCK = b"(secret)"


class Writable(Protocol):
    """A request that credentials are added to."""

    query: Pairs
    headers: list[tuple[str, str]]
    cookies: Pairs


class Credentials:
    """What is declared for the schemes of one API."""

    def __init__(
        self, values: Mapping[str, str], schemes: Mapping[str, Scheme], headers: Mapping[str, str]
    ) -> None:
        self._values = values
        self._schemes = schemes
        self._own = {
            place: {quote(each.name, safe="") for each in schemes.values() if each.place == place}
            for place in ("query", "cookie")
        }
        self._headers = {name.lower() for name in headers}
        told = [*values.values(), *headers.values(), *map(_in_basic, values.values())]
        words = {word for each in told for word in (each, each.rpartition(" ")[2])}
        self._secrets = sorted(
            (word.encode() for word in words if len(word) >= SHORTEST_SECRET), key=len, reverse=True
        )

    @property
    def unknown(self) -> dict[str, str]:
        """Credentials for schemes the document does not have, each with a reason."""
        known = ", ".join(self._schemes) or "none"
        return {
            f"credentials.{name}": f"the document has no such security scheme; it has: {known}"
            for name in self._values
            if name not in self._schemes
        }

    def refuse_set(self, query: Pairs, cookies: Pairs) -> None:
        """Refuse arguments that would stand where a credential does. Raises `ArgumentError`."""
        for pairs, place in ((query, "query"), (cookies, "cookie")):
            taken = {name for name, _ in pairs} & self._own[place]
            if taken:
                raise ArgumentError(f"{min(taken)} is not the caller's to set")

    def add(self, wanted: Iterable[tuple[str, ...]], request: Writable) -> None:
        """Add those of the first alternative that all are declared for; else none."""
        for alternative in wanted:
            if all(name in self._values and name in self._schemes for name in alternative):
                for name in alternative:
                    self._put(self._schemes[name], self._values[name], request)
                return

    def struck(self, text: bytes) -> bytes:
        """A text without any of the secrets."""
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
            told = _in_basic(value) if scheme.place == "basic" else value
            request.headers.append((scheme.name, sign + told))


def _in_basic(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
