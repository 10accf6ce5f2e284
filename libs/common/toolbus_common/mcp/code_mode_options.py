"""What a request wants of Toolbus' own tools: how it sees tools, and how little a program may use.

It travels as raw JSON in `CallRequested.terms`: said by ingress, read by codemode alone.
"""

import msgspec

from toolbus_common.mcp.builtin_server import Mode


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """The mode, and caps on one program beside those of its key: they can only lower them."""

    mode: Mode = Mode.TOOLS
    usd: float | None = None
    calls: int | None = None
    seconds: float | None = None

    def encode(self) -> str:
        """As it travels; empty where nothing is asked for."""
        return "" if self == NO_TERMS else _encode(self).decode()


NO_TERMS = Terms()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Terms).decode


def terms_of(raw: str) -> Terms:
    """What was said, read again."""
    return _decode(raw) if raw else NO_TERMS
