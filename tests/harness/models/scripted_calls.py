"""Scripted tool calls of the mock provider, in the form of each API.

The field `script` of a request's body is a list of turns, each a list of `{name, arguments}`. The
number of calls in the conversation says which turn is next. After the last turn the mock answers
with a text, like a request without a script.
"""

import json
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Event = Callable[..., bytes]


def next_calls(body: Json) -> list[Json]:
    """Return the calls of the next turn, each with its id; empty after the last turn."""
    script = body.get("script")
    if not isinstance(script, list):
        return []
    made = _made(body)
    for turn in script:
        if made == 0:
            return [{"id": f"call_{_made(body)}_{at}", **call} for at, call in enumerate(turn)]
        made -= len(turn)
    return []


def chat_calls(calls: list[Json]) -> list[Json]:
    """Return `tool_calls` of a message of the chat completions API."""
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
        }
        for call in calls
    ]


def chat_deltas(calls: list[Json]) -> list[Json]:
    """Return the deltas of a chat stream: the head of each call, then its arguments in halves."""
    deltas = []
    for index, call in enumerate(chat_calls(calls)):
        text = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        halves = (text[: len(text) // 2], text[len(text) // 2 :])
        deltas.append({"tool_calls": [head]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": h}}]} for h in halves]
    return deltas


def response_items(calls: list[Json]) -> list[Json]:
    """Return items of the responses API."""
    return [
        {
            "type": "function_call",
            "id": f"fc_{call['id']}",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": json.dumps(call["arguments"]),
            "status": "completed",
        }
        for call in calls
    ]


def response_events(calls: list[Json], first: int, event: Event) -> bytes:
    """Return the events of the items; `first` is the index of the first one."""
    parts = []
    for at, item in enumerate(response_items(calls), first):
        place = {"item_id": item["id"], "output_index": at}
        opened = {**item, "arguments": "", "status": "in_progress"}
        text = item["arguments"]
        parts += [
            event("response.output_item.added", output_index=at, item=opened),
            event("response.function_call_arguments.delta", **place, delta=text),
            event("response.function_call_arguments.done", **place, arguments=text),
            event("response.output_item.done", output_index=at, item=item),
        ]
    return b"".join(parts)


def message_blocks(calls: list[Json]) -> list[Json]:
    """Return content blocks of the messages API."""
    return [
        {"type": "tool_use", "id": c["id"], "name": c["name"], "input": c["arguments"]}
        for c in calls
    ]


def message_events(calls: list[Json], first: int, event: Event) -> bytes:
    """Return the events of the blocks; `first` is the index of the first one."""
    parts = []
    for at, block in enumerate(message_blocks(calls), first):
        text = json.dumps(block["input"])
        halves = (text[: len(text) // 2], text[len(text) // 2 :])
        deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        parts.append(event("content_block_start", index=at, content_block={**block, "input": {}}))
        parts += [event("content_block_delta", index=at, delta=each) for each in deltas]
        parts.append(event("content_block_stop", index=at))
    return b"".join(parts)


def _made(body: Json) -> int:
    """Return the number of calls in the conversation."""
    if isinstance(body.get("input"), list):
        return sum(item.get("type") == "function_call" for item in body["input"])
    made = 0
    for message in body.get("messages", []):
        made += len(message.get("tool_calls") or ())
        content = message.get("content")
        if isinstance(content, list):
            made += sum(block.get("type") == "tool_use" for block in content)
    return made
