"""Encode spans as OTLP protobuf messages, written by hand.

Field numbers are those of opentelemetry/proto/trace/v1/trace.proto; tests decode the messages with
the classes generated from it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct

from toolbus_common.observability.trace_context import span_id, trace_id
from toolbus_common.observability.tracing.context import Span, Value

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_ERROR = 2  # of Status.code
_SAMPLED = b"\x85\x01\x01\x00\x00\x00"  # Span.flags, field 16
_LINK_SAMPLED = b"\x35\x01\x00\x00\x00"  # Link.flags, field 6
_fixed64 = Struct("<Q").pack
_double = Struct("<d").pack


def resource_spans(
    resource: Mapping[str, str], service: str, spans: Iterable[bytes], version: str
) -> bytes:
    """Encode the spans of one service; concatenated, these are an ExportTraceServiceRequest."""
    attributes = b"".join(_attribute(1, name, value) for name, value in resource.items())
    scope = _text(1, f"toolbus.{service}") + _text(2, version)
    scoped = _nested(1, scope) + b"".join(_nested(2, span) for span in spans)
    return _nested(1, _nested(1, attributes) + _nested(2, scoped))


def encoded(span: Span) -> bytes:
    """Encode one Span."""
    parts = [
        _nested(1, bytes.fromhex(trace_id(span.traceparent))),
        _nested(2, bytes.fromhex(span_id(span.traceparent))),
    ]
    if span.parent_id:
        parts.append(_nested(4, bytes.fromhex(span.parent_id)))
    parts += (
        _text(5, span.name),
        _number(6, span.kind),
        b"\x39" + _fixed64(span.began),
        b"\x41" + _fixed64(span.ended),
    )
    parts += [_attribute(9, name, value) for name, value in span.attributes.items()]
    parts += [_nested(13, _link(each)) for each in span.links]
    if span.error:
        parts.append(_nested(15, _number(3, _ERROR)))
    parts.append(_SAMPLED)
    return b"".join(parts)


def _link(traceparent: str) -> bytes:
    ids = bytes.fromhex(trace_id(traceparent)), bytes.fromhex(span_id(traceparent))
    return _nested(1, ids[0]) + _nested(2, ids[1]) + _LINK_SAMPLED


@lru_cache(4096, typed=True)  # most repeat; `typed` keeps 1 and True apart
def _attribute(field: int, name: str, value: Value) -> bytes:
    return _nested(field, _text(1, name) + _nested(2, _value(value)))


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return _number(2, value)
    if isinstance(value, int):
        return _number(3, value & (1 << 64) - 1)
    return _tag(4, _FIXED64) + _double(value)


def _text(field: int, text: str) -> bytes:
    return _nested(field, text.encode("utf-8", "replace"))


def _nested(field: int, data: bytes) -> bytes:
    return b"%b%b%b" % (_tag(field, _BYTES), _varint(len(data)), data)


def _number(field: int, number: int) -> bytes:
    return _tag(field, _VARINT) + _varint(number)


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    if number < 0x80:  # noqa: PLR2004 - seven bits per byte
        return _ONE[number]
    encoded_number = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        encoded_number.append(number & 0x7F | 0x80)
        number >>= 7
    encoded_number.append(number)
    return bytes(encoded_number)


_ONE = [bytes((each,)) for each in range(0x80)]
