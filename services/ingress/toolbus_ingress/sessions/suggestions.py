"""Links from a tool call to the model request that suggested it, which clients carry."""

import hmac

from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.errors import InvalidError

SUGGESTION = b"x-toolbus-suggestion"
_LONGEST = 128


class SuggestionLinks:
    """Issues and verifies links: the id of a model request, with a keyed digest of id and caller.

    A caller can thus name only its own model requests as the source of a tool call.
    """

    def __init__(self, sealer: TokenSealer) -> None:
        self._sealer = sealer

    def issue(self, call_id: str, caller: str) -> bytes:
        """Return the link to a model request of this caller (the name of its key)."""
        return f"{call_id}.{self._digest(call_id, caller)}".encode()

    def verified(self, link: bytes | None, caller: str) -> str:
        """Return the id of the linked model request; empty without a link.

        Raises:
            InvalidError: the link was not issued to this caller.

        """
        if not link:
            return ""
        text = link.decode("latin-1") if len(link) <= _LONGEST else ""
        call_id, _, digest = text.partition(".")
        if not hmac.compare_digest(self._digest(call_id, caller).encode(), digest.encode()):
            raise InvalidError(
                f"Invalid header {SUGGESTION.decode()}: it is not from a model response to this "
                f"key. Send the header {SUGGESTION.decode()} of the response that suggested the "
                "tool call, unchanged, or omit it."
            )
        return call_id

    def _digest(self, call_id: str, caller: str) -> str:
        return self._sealer.digest(f"suggestion\n{call_id}\n{caller}")
