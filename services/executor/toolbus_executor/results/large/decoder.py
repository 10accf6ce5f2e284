"""A value as it stands in JSON, turned piece by piece into the bytes that are kept of it."""

import codecs
import json
from binascii import Error as Base64Error
from binascii import a2b_base64

from toolbus_common.errors import UpstreamFaultError
from toolbus_executor.results.large.json_scanner import Kind

_GROUP = 4  # characters of base64 that make three bytes


class Decoding:
    """One value; a string's pieces hold whole escapes only."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._uncut = ""

    def feed(self, raw: bytes) -> bytes:
        """The bytes a piece adds. Raises `UpstreamFaultError`."""
        try:
            return self._fed(raw)
        except (ValueError, Base64Error) as error:
            raise UpstreamFaultError(
                f"The upstream's answer holds {self._kind.value} that cannot be read."
            ) from error

    def _fed(self, raw: bytes) -> bytes:
        text = self._utf8.decode(raw)
        if self._kind is Kind.JSON:
            return text.encode()
        if "\\" in text:
            text = json.loads(f'"{text}"', strict=False)
        if self._kind is Kind.TEXT:
            return text.encode("utf-8", "replace")  # a lone surrogate is no character
        text = self._uncut + text
        whole = len(text) - len(text) % _GROUP
        self._uncut = text[whole:]
        return a2b_base64(text[:whole])

    def end(self) -> bytes:
        """The bytes still to come. Raises `UpstreamFaultError`."""
        rest, self._uncut = self._uncut, ""
        if rest or self._utf8.getstate()[0]:
            raise UpstreamFaultError(
                f"The upstream's answer holds {self._kind.value} that breaks off."
            )
        return b""
