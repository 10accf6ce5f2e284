"""Events in AWS's binary form that no program of AWS sends."""

import struct
from binascii import crc32

import pytest

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.endpoints.aws_events import AwsEvents


@pytest.mark.parametrize(
    "headers", [b"\x01a\x07", b"\x01a\x07\x00", b"\x01a\x63", b"\x05a", b"\x01\xff\x00"]
)
def test_an_event_with_malformed_headers_is_refused(headers: bytes) -> None:
    prelude = struct.pack("!II", len(headers) + 16, len(headers))
    prelude += struct.pack("!I", crc32(prelude))
    message = prelude + headers
    message += struct.pack("!I", crc32(message))
    with pytest.raises(UpstreamInvalidError, match="invalid event"):
        list(AwsEvents().feed(message))
