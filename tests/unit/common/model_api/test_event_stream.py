"""The split of an event stream into complete events."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.model_api.event_stream import EventSplitter

EVENTS = st.lists(
    st.sampled_from([b"data: 1\n\n", b"data: 2\r\n\r\n", b"event: a\ndata: 3\n\n", b": c\r\n\r\n"]),
    max_size=5,
)


@given(events=EVENTS, rest=st.sampled_from([b"", b"d", b"data: 4", b"data: 4\r\n"]), data=st.data())
def test_only_complete_events_are_returned_whatever_the_pieces(
    events: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    stream = b"".join(events) + rest
    splitter, made = EventSplitter(), b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        made += splitter.feed(stream[:size])
        assert not made or re.search(rb"\n\n$|\r\n\r\n$", made)
        stream = stream[size:]
    assert made == b"".join(events)
    assert splitter.take_rest() == rest
    assert splitter.take_rest() == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_the_end_of_an_event_is_found_in_single_bytes(end: bytes) -> None:
    splitter = EventSplitter()
    *before, last = [splitter.feed(bytes([byte])) for byte in b"data: 1" + end]
    assert not any(before)
    assert last == b"data: 1" + end
