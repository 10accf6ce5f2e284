"""Streamed responses of models: chunks, errors within them, disconnections, and slow readers."""

import asyncio
import json
from typing import Any

import pytest

from harness.services.model_edge import (
    OpenEdge,
    ProviderCall,
    fails,
    streams,
)
from harness.waits import until
from toolbus_common.contracts import CallError, CallResult, Notification
from toolbus_common.contracts.model_calls import (
    CHUNK,
    decode_model_call,
)
from toolbus_common.contracts.replies import Reply
from toolbus_common.errors import (
    CallCancelledError,
    ModelRefusedError,
    UpstreamDeadError,
)

DOWN = ModelRefusedError("Down.", status=503)


async def test_chunks_arrive_before_the_stream_ends(model_edge_on_both: OpenEdge) -> None:
    received = asyncio.Event()

    async def provider(call: ProviderCall) -> Reply:
        await call.chunk(b'data: {"n":1}\n\n')
        await received.wait()
        await call.chunk(b'data: {"n":2}\n\ndata: [DO')
        await call.chunk(b"NE]\n\n")
        return CallResult(b"")

    async with (
        model_edge_on_both(local=provider) as served,
        served.stream(max_tokens=5) as response,
    ):
        parts = response.aiter_raw()
        first = await anext(parts)
        received.set()
        rest = b"".join([part async for part in parts])
    assert (first, rest) == (b'data: {"n":1}\n\n', b'data: {"n":2}\n\ndata: [DONE]\n\n')
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-toolbus-model"] == "local/gemma"
    assert decode_model_call(served.calls[0].extra).stream
    assert served.cancelled == []


async def test_a_client_may_accept_events_only(model_edge: OpenEdge) -> None:
    async with model_edge(local=streams(b"data: 1\n\n")) as served:
        body = {"model": "fast", "stream": True}
        response = await served.send("/v1/responses", body, accept="text/event-stream")
        empty = await served.send("/v1/responses", body, accept="text/html")
    assert (response.status_code, response.content) == (200, b"data: 1\n\n")
    assert empty.status_code == 406


async def test_a_stream_without_chunks_is_empty(model_edge: OpenEdge) -> None:
    async with model_edge(local=streams()) as served:
        response = await served.post(stream=True)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_an_error_before_the_first_chunk_is_an_http_error(
    model_edge_on_both: OpenEdge,
) -> None:
    refused = ModelRefusedError("Too long.", status=400, type="context")
    async with model_edge_on_both(local=fails(refused)) as served:
        response = await served.post(stream=True)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Too long."
    assert response.headers["x-toolbus-call-id"] == served.calls[0].call_id
    assert len(served.calls) == 1


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/v1/chat/completions", b"data: {"),
        ("/v1/responses", b"event: error\ndata: {"),
        ("/v1/messages", b"event: error\ndata: {"),
    ],
)
async def test_an_error_after_the_first_chunk_is_the_last_event(
    model_edge: OpenEdge, path: str, event: bytes
) -> None:
    provider = streams(b"data: 1\n\ndata: {", b'"cut', error=UpstreamDeadError("Died."))
    async with model_edge(local=provider) as served:
        response = await served.post(path, stream=True)
    first, _, last = response.content.partition(b"\n\n")
    assert (response.status_code, first) == (200, b"data: 1")
    assert last.startswith(event)
    assert json.loads(last.partition(b"data: ")[2])["error"]["message"] == "Died."
    assert len(served.calls) == 1, "there is no fallback after the first byte"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_disconnection_cancels_the_call_at_once(
    model_edge_on_both: OpenEdge, *, stream: bool
) -> None:
    ended = asyncio.Event()

    async def provider(call: ProviderCall) -> Reply:
        if stream:
            await call.chunk(b"data: 1\n\n")
        await ended.wait()
        return CallError(CallCancelledError("Cancelled."))

    async with model_edge_on_both(local=provider) as served:
        if stream:
            async with served.stream() as response:
                assert await anext(response.aiter_raw())
        else:
            asking = asyncio.ensure_future(served.post())
            await until(lambda: served.calls, "the call")
            asking.cancel()
        await until(lambda: served.cancelled, "the cancellation")
        ended.set()
        await until(lambda: not served.endpoint.overloaded, "the end")
    assert served.cancelled == [served.calls[0].call_id]
    assert len(served.calls) == 1


async def test_no_target_is_tried_for_a_client_that_has_left(model_edge: OpenEdge) -> None:
    async def provider(_call: ProviderCall) -> Reply:
        await until(lambda: served.cancelled, "the cancellation")
        return CallError(DOWN)

    async with model_edge(local=provider) as served:
        asking = asyncio.ensure_future(served.post())
        await until(lambda: served.calls, "the call")
        asking.cancel()
        await until(lambda: served.cancelled, "the cancellation")
        await until(lambda: served.made.ingress.calls.in_flight == 0, "the end")
    assert len(served.calls) == 1


async def test_a_client_that_does_not_read_is_cancelled(model_edge: OpenEdge) -> None:
    async def provider(call: ProviderCall) -> Reply:
        event = b"data: " + b"x" * 2**20 + b"\n\n"
        while not served.cancelled:
            await call.chunk(event)
            await asyncio.sleep(0)
        return CallError(CallCancelledError("Cancelled."))

    async with model_edge(local=provider) as served, served.stream() as response:
        await until(lambda: served.cancelled, "the cancellation")
        received = b"".join([part async for part in response.aiter_raw()])
    *events, last, end = received.split(b"\n\n")
    assert (end, set(map(len, events))) == (b"", {6 + 2**20})
    assert "Read the stream faster" in json.loads(last.removeprefix(b"data: "))["error"]["message"]
    assert served.cancelled == [served.calls[0].call_id]


async def test_a_stream_that_a_shutdown_cuts_ends_with_an_error(model_edge: OpenEdge) -> None:
    async def provider(call: ProviderCall) -> Reply:
        await call.chunk(b"data: 1\n\ndata: half")
        await asyncio.Event().wait()
        return CallResult(b"")

    sent: list[dict[str, Any]] = []
    body = b'{"model":"fast","stream":true}'

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with model_edge(local=provider) as served:
        headers = {**served.headers(), "host": "localhost"}
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions",
            "query_string": b"", "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        request = asyncio.create_task(served.app(scope, receive, send))
        await until(lambda: len(sent) == 2, "the first chunk")
        request.cancel()
        await request
    last = sent[-1]
    assert b"".join(each["body"] for each in sent[1:-1]) == b"data: 1\n\n"
    assert json.loads(last["body"].removeprefix(b"data: "))["error"]["code"] == "outcome_unknown"
    assert not last["more_body"]


@pytest.mark.parametrize("numbers", [(1, 3, 3), (1, 2, 3)], ids=["between", "at the end"])
async def test_a_lost_chunk_ends_the_stream_with_an_error(
    model_edge_on_both: OpenEdge, numbers: tuple[int, int, int]
) -> None:
    first, second, parts = numbers

    async def provider(call: ProviderCall) -> Reply:
        for number in (first, second):
            await call.context.send(Notification(CHUNK, b"data: %d\n\n" % number, number))
        return CallResult(b"", parts)

    async with model_edge_on_both(local=provider) as served:
        response = await served.post(stream=True)
        await until(lambda: served.cancelled, "the cancellation")
    last = response.content.rpartition(b"data: ")[2]
    assert "lost between services" in json.loads(last)["error"]["message"]
    assert served.cancelled == [served.calls[0].call_id]


async def test_numbered_chunks_end_normally(model_edge_on_both: OpenEdge) -> None:
    async def provider(call: ProviderCall) -> Reply:
        for number in (1, 2):
            await call.context.send(Notification(CHUNK, b"data: %d\n\n" % number, number))
        return CallResult(b"", 2)

    async with model_edge_on_both(local=provider) as served:
        response = await served.post(stream=True)
    assert response.content == b"data: 1\n\ndata: 2\n\n"
