"""Detection of failures that a tool reports in its result, for spans."""

import msgspec

LARGEST = 1024 * 1024  # bytes; larger results are not parsed


class _Result(msgspec.Struct):
    isError: bool = False  # noqa: N815 - the wire's own name


_decode = msgspec.json.Decoder(_Result).decode


def says_it_failed(body: bytes) -> bool:
    """Return whether `isError` is true in a result. Results above `LARGEST` bytes return False."""
    if len(body) > LARGEST:
        return False
    try:
        return _decode(body).isError
    except msgspec.MsgspecError:
        return False
