"""Options of a request for the built-in server: the mode, and limits for one program.

They travel as raw JSON in `CallRequested.terms`, written by ingress and read by codemode only.
"""

import msgspec

from toolbus_common.mcp.builtin_server import Mode


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """The mode, and limits on one program; they can only lower the limits of its key."""

    mode: Mode = Mode.TOOLS
    usd: float | None = None
    calls: int | None = None
    seconds: float | None = None

    def encode(self) -> str:
        """Return the wire form; empty for the default options."""
        return "" if self == NO_TERMS else _encode(self).decode()


NO_TERMS = Terms()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Terms).decode


def terms_of(raw: str) -> Terms:
    """Parse the wire form."""
    return _decode(raw) if raw else NO_TERMS
