"""Ids of tasks and contexts as callers see them: each is bound to one principal and one server.

An id of the agent is followed by a keyed digest. All executors derive the key from the same file,
so any of them accepts the id, and none has to store it. While the key is replaced, they accept the
ids of each accepted key.
"""

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256

from toolbus_common.access.session_owner import digest_of
from toolbus_common.base64url import encoded
from toolbus_common.contracts import CallAdmitted
from toolbus_common.crypto.aead import derived_key
from toolbus_common.errors import InvalidArgumentsError
from toolbus_executor.resilience.failure_log import GarbageError

LONGEST_ID = 256
_DIGEST = 16  # bytes


class Handles:
    """The ids of one server."""

    def __init__(self, secrets: Callable[[], Sequence[bytes]], server: str) -> None:
        self._secrets = secrets  # the first is in use
        self._server = server

    def of(self, kind: str, own_id: str, call: CallAdmitted) -> str:
        """Return the id that the caller receives. Raises `GarbageError` if the id is too long."""
        if len(own_id) > LONGEST_ID:
            raise GarbageError(f"The agent's {kind} is longer than {LONGEST_ID}; fix the agent.")
        return f"{own_id}.{self._digest(self._secrets()[0], kind, own_id, call)}"

    def own(self, kind: str, handle: str, call: CallAdmitted) -> str:
        """Return the agent's id in a caller's argument; empty if the argument is empty.

        Raises:
            InvalidArgumentsError: the id was not created for this principal at this server.

        """
        own_id, _, digest = handle.rpartition(".")
        if not handle:
            return ""
        digests = [self._digest(each, kind, own_id, call) for each in self._secrets()]
        known = [hmac.compare_digest(digest.encode(), each.encode()) for each in digests]
        if not own_id or not any(known):
            raise InvalidArgumentsError(
                f"Unknown {kind}: it is invalid, or belongs to another principal or server. Use "
                f"the {kind} of an earlier result of this server.",
                sent=False,
            )
        return own_id

    def _digest(self, secret: bytes, kind: str, own_id: str, call: CallAdmitted) -> str:
        key = derived_key(secret, b"toolbus a2a: tasks and contexts")
        principal = call.principal_id or digest_of(call.customer, call.key, call.user)
        text = digest_of(kind, self._server, principal, own_id.encode("utf-8", "replace").hex())
        return encoded(hmac.digest(key, text.encode(), sha256)[:_DIGEST])
