"""Read from a tool's result whether it reports a failure, for its span."""

import msgspec

LARGEST = 1024 * 1024  # bytes parsed for a span


class _Result(msgspec.Struct):
    isError: bool = False  # noqa: N815 - the wire's own name


_decode = msgspec.json.Decoder(_Result).decode


def says_it_failed(body: bytes) -> bool:
    """Return whether `isError` is true; False for results above `LARGEST` bytes."""
    if len(body) > LARGEST:
        return False
    try:
        return _decode(body).isError
    except msgspec.MsgspecError:
        return False
