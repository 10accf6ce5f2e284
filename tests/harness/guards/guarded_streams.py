"""Streams of models in the form of each API, and the guards that check them, in tests."""

import json
from collections.abc import Callable
from time import time
from typing import Any

from harness.clients.model_sdks import CHAT, MESSAGES, RESPONSES, accumulated
from harness.services.call_runner import RecordedEvents, admitted
from harness.services.guarded import guards_of
from toolbus_executor.guards.call_guards import CallGuards, GuardedContent
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.guards.streams.guarded_stream import GuardedStream

BLOCK = {"kind": "secrets", "on": ["completions"], "action": "block"}
REDACT = BLOCK | {"action": "redact"}
DIALECTS = sorted([CHAT, MESSAGES, RESPONSES])


def data(event: dict[str, Any], name: str = "") -> bytes:
    """Return an event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def chat(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    """Return a chunk of the chat completions API."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more}
    return data({**head, "choices": [choice]})


def block(number: int, **delta: str) -> bytes:
    """Return a delta of the messages API."""
    return data({"type": "content_block_delta", "index": number, "delta": delta})


def output(kind: str, **fields: Any) -> bytes:
    """Return an event of the responses API about its first text."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return data({"type": f"response.{kind}", **place, **fields})


def stream(
    guards: CallGuards, secrets: HeldSecrets | None = None, key: str = "bot"
) -> GuardedStream:
    """Return the stream of a call of a key, to which the guard `g` applies."""
    fields = {"run": "r1", "principal_id": "p1", "key": key, "deadline": time() + 60}
    call = admitted("1", guards=("g",), **fields)
    return GuardedStream(GuardedContent(guards, call, "completions"), secrets)


async def sent(made: GuardedStream, *events: bytes) -> bytes:
    """Return what the client receives, if no guard rejects an event."""
    return b"".join([await made.feed(each) for each in events]) + await made.end()


def secret_guards(**more: Any) -> CallGuards:
    """Return a guard that looks for secrets."""
    return guards_of(RecordedEvents(), g=BLOCK | more)


def chat_stream(pieces: list[str]) -> list[bytes]:
    """Return a chat stream with a text in pieces."""
    first = chat({"role": "assistant", "content": ""})
    return [first, *(chat({"content": each}) for each in pieces), chat({}, "stop")]


def messages_stream(pieces: list[str]) -> list[bytes]:
    """Return a stream of the messages API. Its first piece is in the start of the block."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    start = {"type": "text", "text": pieces[0] if pieces else ""}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        data({"type": "message_start", "message": {**message, "usage": usage}}),
        data({"type": "content_block_start", "index": 0, "content_block": start}),
        *(block(0, type="text_delta", text=each) for each in pieces[1:]),
        data({"type": "content_block_stop", "index": 0}),
        data({"type": "message_delta", "delta": ended, "usage": usage}),
        data({"type": "message_stop"}),
    ]


def responses_stream(pieces: list[str]) -> list[bytes]:
    """Return a stream of the responses API, which repeats the whole text three times."""
    text = "".join(pieces)
    whole = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant"}
    done = {**item, "status": "completed", "content": [whole]}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": []}
    head |= {"parallel_tool_calls": True, "tool_choice": "auto", "metadata": {}}
    started = {**item, "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        {"type": "response.content_part.added", **place, "part": whole | {"text": ""}},
    ]
    kind = "response.output_text"
    events += [{"type": f"{kind}.delta", **place, "delta": each, "logprobs": []} for each in pieces]
    events += [
        {"type": f"{kind}.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {
            "type": "response.completed",
            "response": {**head, "status": "completed", "output": [done]},
        },
    ]
    return [data({**each, "sequence_number": number}) for number, each in enumerate(events)]


STREAMS: dict[str, Callable[[list[str]], list[bytes]]] = {
    CHAT: chat_stream,
    MESSAGES: messages_stream,
    RESPONSES: responses_stream,
}


def text_of(dialect: str, received: bytes) -> str:
    """Return the text that the SDK's accumulator makes of a stream."""
    made = accumulated(dialect, received)
    if dialect == CHAT:
        return str(made["choices"][0]["message"]["content"] or "")
    return "".join(
        part["text"]
        for item in (made["content"] if dialect == MESSAGES else made["output"])
        for part in ([item] if dialect == MESSAGES else item["content"])
    )
