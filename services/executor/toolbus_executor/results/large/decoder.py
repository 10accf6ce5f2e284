"""Incremental decoding of one JSON value to the bytes to store."""

import codecs
import json
from binascii import Error as Base64Error
from binascii import a2b_base64

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.results.large.json_scanner import Kind

_GROUP = 4  # characters of base64 that encode three bytes


class Decoder:
    """Decoder of one value. No piece of a string ends within an escape sequence."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    def feed(self, raw: bytes) -> bytes:
        """Return the decoded bytes of the next piece. Raises `UpstreamInvalidError`."""
        try:
            return self._decode(raw)
        except (ValueError, Base64Error) as error:
            raise UpstreamInvalidError(
                f"The upstream's reply has invalid {self._kind.value}; fix the server."
            ) from error

    def _decode(self, raw: bytes) -> bytes:
        text = self._utf8.decode(raw)
        if self._kind is Kind.JSON:
            return text.encode()
        if "\\" in text:
            text = json.loads(f'"{text}"', strict=False)
        if self._kind is Kind.TEXT:
            return text.encode("utf-8", "replace")  # a lone surrogate is not a character
        text = self._rest + text
        whole = len(text) - len(text) % _GROUP
        self._rest = text[whole:]
        return a2b_base64(text[:whole])

    def end(self) -> bytes:
        """Return the remaining bytes at the end of the value. Raises `UpstreamInvalidError`."""
        rest, self._rest = self._rest, ""
        if rest or self._utf8.getstate()[0]:
            raise UpstreamInvalidError(
                f"The upstream's reply has truncated {self._kind.value}; fix the server."
            )
        return b""
