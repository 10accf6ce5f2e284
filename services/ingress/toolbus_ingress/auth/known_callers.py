"""Callers found by their authorization header alone, cached per snapshot of the configuration."""

from hashlib import sha256
from time import time

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.auth.request_scope import PROGRAM, SERVERS, TOOLS
from toolbus_ingress.http.request_guard import Headers

MAX_CALLERS = 10_000
_RESTRICTING = frozenset({SERVERS, TOOLS, PROGRAM})


class KnownCallers:
    """The callers with an API key whose requests set no restrictions or options.

    An entry is valid for one snapshot and until its key expires, so a revoked key is rejected as
    soon as the snapshot without it arrives. Headers are stored as SHA-256 digests.
    """

    def __init__(self, directory: ConfigView) -> None:
        self._directory = directory
        self._snapshot = directory.now
        # The key is the digest of the header and the endpoint's server; the value is the caller
        # and the time at which the caller's key expires.
        self._callers: dict[tuple[bytes, str], tuple[Caller, float]] = {}

    def find(self, headers: Headers, server: str, query: bytes) -> Caller | None:
        """Return the caller of a request; None if the request must be authenticated in full."""
        snapshot = self._directory.now
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._callers.clear()
        key = _key_of(headers, server, query)
        found = self._callers.get(key) if key is not None else None
        return found[0] if found is not None and time() < found[1] else None

    def add(self, headers: Headers, query: bytes, caller: Caller) -> None:
        """Cache the caller of an authenticated request, if header and server determine the caller.

        Anonymous callers and holders of access tokens are not cached.
        """
        key = _key_of(headers, caller.server, query)
        if key is None or caller.holder:
            return
        if len(self._callers) >= MAX_CALLERS:
            self._callers.clear()
        self._callers[key] = caller, self._directory.now.principal(caller.name).ends


def _key_of(headers: Headers, server: str, query: bytes) -> tuple[bytes, str] | None:
    """Return the cache key of a request; None if its caller depends on other parts too."""
    authorization = headers.get(b"authorization")
    if authorization is None or query or not _RESTRICTING.isdisjoint(headers):
        return None
    return sha256(authorization).digest(), server
