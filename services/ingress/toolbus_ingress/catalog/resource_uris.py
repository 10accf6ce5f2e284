"""Resource URIs on the shared endpoint: unchanged, or marked with the server's name."""

import re
from collections.abc import Iterable, Iterator

from toolbus_common.contracts import Listing

MARK = "+"  # valid in URI schemes (RFC 3986, 3.1): `docs+file:///a` is `file:///a` of server docs
_EXPRESSION = re.compile(r"\{[^{}]*\}")


class ResourceIndex:
    """The servers of each listed URI, and the templates that could match a URI."""

    def __init__(self, listings: Iterable[Listing] = ()) -> None:
        ordered = sorted(listings, key=lambda listing: listing.server)
        self._servers = {listing.server for listing in ordered}
        self._owners: dict[str, list[str]] = {}
        for listing in ordered:
            for offered in listing.resources:
                self._owners.setdefault(offered.name, []).append(listing.server)
        self._templates = [
            (listing.server, tuple(_EXPRESSION.split(offered.name)))
            for listing in ordered
            for offered in listing.templates
        ]
        self._listed = {
            self.shown(server, uri): (server, uri)
            for uri, servers in self._owners.items()
            for server in servers
        }

    def shown(self, server: str, uri: str) -> str:
        """Return the URI that agents see on the shared endpoint.

        The URI is prefixed with the server's name if an earlier server lists the same URI, or if
        the server's own URI looks as if it had such a prefix.
        """
        first = self._owners.get(uri, [server])[0]
        # A URI that looks prefixed could be mistaken for a URI of another server.
        marked = uri.partition(MARK)[0] in self._servers
        return f"{server}{MARK}{uri}" if marked or first != server else uri

    def owners(self, uri: str) -> Iterator[tuple[str, str]]:
        """Yield each server that may have a URI, with the server's own URI; most likely first."""
        if uri in self._listed:
            yield self._listed[uri]
        for server in self._owners.get(uri, ()):
            yield server, uri
        marked, mark, rest = uri.partition(MARK)
        if mark and marked in self._servers:
            yield marked, rest
        for server, literals in self._templates:
            if _matches(literals, uri):
                yield server, uri


def _matches(literals: tuple[str, ...], uri: str) -> bool:
    """Return whether a template with these literals between its expressions could match the URI.

    Source: RFC 6570. An expression matches any text; the server decides. The time is linear in the
    length of the URI, because templates come from servers and URIs from agents.
    """
    first, *middle = literals
    if not middle:
        return uri == first
    last = middle.pop()
    if not uri.startswith(first) or not uri.endswith(last):
        return False
    position, end = len(first), len(uri) - len(last)
    for literal in middle:
        found = uri.find(literal, position, end)
        if found < 0:
            return False
        position = found + len(literal)
    return position <= end
