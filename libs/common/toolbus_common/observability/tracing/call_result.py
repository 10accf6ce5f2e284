"""What a recorded span says of a tool's result: whether it reports a failure."""

import msgspec

LARGEST = 1024 * 1024  # bytes that are looked through for the sake of a span


class _Result(msgspec.Struct):
    isError: bool = False  # noqa: N815 - the wire's own name


_decode = msgspec.json.Decoder(_Result).decode


def says_it_failed(body: bytes) -> bool:
    """Whether a result has `isError`; one that is very large is not looked through."""
    if len(body) > LARGEST:
        return False
    try:
        return _decode(body).isError
    except msgspec.MsgspecError:
        return False
