"""The parser of Server-Sent Events."""

import json

from hypothesis import given
from hypothesis import strategies as st

from toolbus_executor.transport.sse_parser import EventReader


@given(st.lists(st.text(alphabet="abc \n", max_size=8), min_size=1, max_size=6), st.data())
def test_events_do_not_depend_on_how_the_stream_is_split(
    texts: list[str], data: st.DataObject
) -> None:
    events = [json.dumps(text).encode() for text in texts]
    stream = b"".join(
        b"event: message\r\nid: 1\r\ndata: %b\r\n\r\n: keep\r\n\r\n" % e for e in events
    )
    cut = data.draw(st.integers(0, len(stream)))
    reader = EventReader()
    assert [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])] == events


def test_the_last_event_id_and_the_retry_time_are_kept() -> None:
    reader = EventReader()
    assert not [*reader.feed(b"id: 7\nretry: 250\ndata: \n\n")]
    assert (reader.last_id, reader.retry) == (b"7", 0.25)


def test_an_event_has_its_name() -> None:
    reader = EventReader()
    assert [(reader.name, data) for data in reader.feed(b"event: endpoint\ndata: /x\n\n")] == [
        ("endpoint", b"/x")
    ]
