"""The writer of streamed responses: complete events, in order, in bounded memory."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.waits import until
from toolbus_common.contracts import Notification, Progress
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_ingress.models_api import chunk_stream
from toolbus_ingress.models_api.chunk_stream import LARGEST_UNREAD, ChunkStream

ERROR = b"event: error\ndata: {}\n\n"
MIB = b"x" * 2**20 + b"\n\n"


class Client:
    """The client of one stream. It reads while `reads` is set."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.writes: list[bytes] = []
        self.complete = False
        self.overflows = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self.stream = ChunkStream(self._send, ((b"x-own", b"1"),), self._overflow)

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        assert not self.complete
        if message["type"] == "http.response.start":
            self.head = message
        else:
            self.writes.append(message["body"])
            self.complete = not message["more_body"]

    def _overflow(self) -> None:
        self.overflows += 1

    def put(self, chunk: bytes, number: int = 0) -> None:
        self.stream.put(Notification(CHUNK, chunk, number))

    @property
    def received(self) -> bytes:
        return b"".join(self.writes)


async def pause() -> None:
    """Let the writer run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_each_event_is_written_before_the_next_arrives() -> None:
    client = Client()
    assert not client.stream.started
    for n in range(3):
        client.put(b"data: %d\n\n" % n)
        await pause()
        assert client.writes[-1] == b"data: %d\n\n" % n
    assert client.head["status"] == 200
    assert (b"x-own", b"1") in client.head["headers"]
    await client.stream.end()
    assert (client.writes[-1], client.complete) == (b"", True)


async def test_other_notifications_do_not_start_the_stream() -> None:
    client = Client()
    client.stream.put(Progress(b"{}"))
    client.stream.put(Notification("notifications/message", b"{}"))
    client.put(b"")
    client.put(b"data: half")
    await pause()
    assert not client.stream.started
    assert client.head == {}


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@given(
    texts=st.lists(st.binary(max_size=9).map(lambda b: b.translate(None, b"\r\n")), max_size=6),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    fails=st.booleans(),
)
async def test_only_complete_events_precede_an_error(
    end: bytes, texts: list[bytes], cuts: list[int], *, fails: bool
) -> None:
    whole = b"".join(b"data: %b%b" % (text, end) for text in texts)
    client, rest = Client(), b"data: cut"
    data = whole + rest
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in pairwise(places):
        client.put(data[start:stop])
        await pause()
        assert client.received == b"" or client.received.endswith(end)
    await client.stream.end(ERROR if fails else b"")
    assert client.received == (whole + ERROR if fails else data)
    assert client.complete


async def test_a_client_that_stops_reading_is_cut_off_once() -> None:
    client = Client()
    client.put(MIB)
    await pause()
    client.reads.clear()
    for _ in range(LARGEST_UNREAD // len(MIB) + 5):
        client.put(MIB)
        await pause()
    assert (client.overflows, client.stream.overflowed) == (1, True)
    client.reads.set()
    await client.stream.end(ERROR)
    assert client.received.endswith(MIB + ERROR)
    assert len(client.received) < 4 * len(MIB), "what was unread is dropped"


async def test_an_endless_event_is_cut_off_too() -> None:
    client = Client()
    for _ in range(LARGEST_UNREAD // 2**20 + 2):
        client.put(b"x" * 2**20)
    assert (client.overflows, client.stream.started) == (1, False)
    await client.stream.end(ERROR)
    assert client.received == ERROR


async def test_a_reader_that_keeps_up_is_never_cut_off() -> None:
    client = Client()
    count = 3 * LARGEST_UNREAD // len(MIB)
    for _ in range(count):
        client.put(MIB)
        await pause()
    await client.stream.end()
    assert (client.overflows, len(client.received)) == (0, count * len(MIB))


async def test_a_lost_chunk_cuts_the_stream() -> None:
    client = Client()
    client.put(b"data: 1\n\n", 1)
    client.put(b"data: 3\n\n", 3)
    client.put(b"data: 4\n\n", 4)
    assert (client.stream.lost, client.overflows) == (True, 1)
    await client.stream.end(ERROR)
    assert client.received == b"data: 1\n\n" + ERROR


async def test_a_lost_last_chunk_is_found_by_the_number_of_chunks() -> None:
    client = Client()
    client.put(b"data: 1\n\n", 1)
    client.stream.check(1)
    assert not client.stream.is_cut
    client.stream.check(2)
    assert client.stream.is_cut


async def test_only_a_silent_stream_has_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_stream, "KEEP_ALIVE_SECONDS", 0.001)
    client = Client()
    client.put(b"data: 1\n\ndata: ")
    await until(lambda: client.received.count(b": ping\n\n") > 1, "two comments")
    client.put(b"2\n\n")
    await client.stream.end()
    assert client.received.replace(b": ping\n\n", b"") == b"data: 1\n\ndata: 2\n\n"
    assert client.complete


async def test_a_stream_without_silence_has_no_comments() -> None:
    client = Client()
    client.put(b"data: 1\n\n")
    client.stream._keep()
    await pause()
    await client.stream.end()
    assert client.received == b"data: 1\n\n"
