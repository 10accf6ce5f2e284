"""A failure crosses the bus as data and comes back as the class it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common import errors
from toolbus_common.contracts import CallError, decode_reply
from toolbus_common.errors import ToolbusError, UnknownToolError


def tree(root: type[ToolbusError]) -> list[type[ToolbusError]]:
    return [root, *(found for child in root.__subclasses__() for found in tree(child))]


CLASSES = [cls for cls in tree(ToolbusError) if cls.__module__ == errors.__name__]
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()


@given(
    cls=st.sampled_from(CLASSES),
    reason=st.text(),
    data=st.dictionaries(
        st.text(min_size=1).filter(lambda n: n not in ("self", "reason")), scalars
    ),
)
def test_an_error_round_trips_over_the_bus(
    cls: type[ToolbusError], reason: str, data: dict[str, object]
) -> None:
    reply = decode_reply(CallError(cls(reason, **data)).encode())
    assert isinstance(reply, CallError)
    assert type(reply.error) is cls
    assert (reply.error.reason, reply.error.data) == (reason, data)
    assert reply.error.retryable == cls.retryable


def test_an_unknown_code_is_still_an_error_with_its_message() -> None:
    error = ToolbusError.from_data({"code": "from_the_future", "reason": "Wait."})
    assert type(error) is ToolbusError
    assert error.reason == "Wait."


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


def test_the_docstring_shows_the_class_tree() -> None:
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}
    assert drawn == {cls.__name__ for cls in CLASSES}


def test_a_hidden_and_a_missing_tool_are_reported_alike() -> None:
    assert str(UnknownToolError.named("git__push")) == "Unknown tool: git__push"


@pytest.mark.parametrize("reply", [b"", b"x{}", b"{}"])
def test_bytes_that_are_no_reply_message_are_rejected(reply: bytes) -> None:
    with pytest.raises(ValueError, match="unknown reply message"):
        decode_reply(reply)
