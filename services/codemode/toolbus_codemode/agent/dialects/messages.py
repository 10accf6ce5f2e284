"""Runs in the form of the messages API.

An executed call and its result are blocks of the types `mcp_tool_use` and `mcp_tool_result`, which
are this API's form for calls that the server executes. A client that returns them in its next
request continues the conversation with these results.
"""

from typing import Any

from toolbus_codemode.agent.dialects.base import (
    EXECUTED,
    Ending,
    IsAutomatic,
    Json,
    Result,
    Suggested,
    Turn,
    checked,
    encode,
    is_executed,
    objects,
    parsed_response,
    summed,
    text_of,
)
from toolbus_codemode.agent.dialects.events import named
from toolbus_common.errors import UpstreamInvalidError

USE, RESULT = "mcp_tool_use", "mcp_tool_result"
SERVER = "toolbus"  # the server name of executed calls
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def conversation(body: Json, turns: list[Turn]) -> Json:
    """Return the body of the next request: the client's messages, and those of the turns."""
    messages = list(body["messages"])
    for turn in turns:
        messages.append({"role": "assistant", "content": turn.content})
        results = [_result(each, turn) for each in turn.calls if each.call_id in turn.results]
        if results:
            messages.append({"role": "user", "content": results})
    return {**body, "messages": messages}


def restored(body: Json) -> Json:
    """Return the body with executed calls of earlier runs restored to the model's own form."""
    messages: list[Json] = []
    open_results: list[Json] = []  # results whose user message is still to come
    for message in body["messages"]:
        content = message.get("content")
        if message.get("role") == "assistant" and isinstance(content, list):
            if open_results:
                messages.append({"role": "user", "content": open_results})
            split, open_results = _split(objects(content))
            messages += split
        elif open_results and message.get("role") == "user":
            own = content if isinstance(content, list) else [{"type": "text", "text": content}]
            messages.append({**message, "content": [*open_results, *own]})
            open_results = []
        else:
            messages.append(message)
    return {**body, "messages": messages}


def read(response: bytes) -> Turn:
    """Return the turn of a response. Raises `UpstreamInvalidError`."""
    found = parsed_response(response)
    content, usage = found.pop("content", None), found.pop("usage", None)
    if not isinstance(content, list):
        raise UpstreamInvalidError(
            "The provider's response has no content. Check the provider's 'url' and 'apis'."
        )
    return _turn(found, objects(content), usage)


def body(turns: list[Turn], ending: Ending, is_automatic: IsAutomatic) -> bytes:
    """Return the response of a run: the blocks of all turns."""
    blocks: list[Json] = []
    for turn in turns:
        blocks += [_shown(block, turn, is_automatic) for block in turn.content]
        blocks += _shown_results(turn)
    if ending.note:
        blocks.append({"type": "text", "text": ending.note})
    head = dict(turns[-1].head) if turns else {"type": "message", "role": "assistant", "model": ""}
    head |= {
        "id": _response_id(ending.run),
        "content": blocks,
        "stop_reason": _stop_reason(turns, ending),
        "stop_sequence": head.get("stop_sequence"),
        "usage": _whole_usage(turns),
        "toolbus": ending.about,
    }
    return encode(head)


class MessagesStream:
    """The events of one run: one message whose blocks are those of all turns."""

    def __init__(self, run: str, _body: Json, is_automatic: IsAutomatic) -> None:
        self._run = run
        self._is_automatic = is_automatic
        self._started = False
        self._count = 0  # the blocks that the client has received
        self.begin_turn()

    def begin_turn(self) -> None:
        """Prepare for the events of another response."""
        self._head: Json = {}
        self._usage: Json = {}
        self._blocks: dict[Any, Json] = {}  # by the provider's index
        self._indexes: dict[Any, int] = {}  # the client's index, by the provider's
        self._inputs: dict[Any, str] = {}
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the client's events for one event."""
        event = parsed_response(data)
        kind = event.get("type")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            return self._begin(event["message"])
        if kind == "content_block_start":
            return self._block(event.get("index"), event.get("content_block"))
        if kind == "content_block_delta":
            return self._delta(event.get("index"), event)
        if kind == "content_block_stop":
            return self._shifted(event)
        if kind == "message_delta":
            self._note_end(event)
        elif kind == "error":
            raise UpstreamInvalidError(
                "The provider reported an error in its stream. Continue the run."
            )
        elif kind == "ping" and self._started:
            return named({"type": "ping"})
        return b""

    def turn(self) -> Turn:
        """Return the turn. Raises `UpstreamInvalidError` if its stream has no stop reason."""
        if not self._ended:
            raise UpstreamInvalidError("The provider's stream ended early. Continue the run.")
        for index, text in self._inputs.items():
            self._blocks[index]["input"] = parsed_response(text.encode()) if text.strip() else {}
        return _turn(self._head, list(self._blocks.values()), self._usage)

    def replayed(self, turn: Turn) -> bytes:
        """Return the events of an earlier turn."""
        self.begin_turn()
        parts = [self._begin({**turn.head, "usage": turn.usage})]
        parts += [self._whole(_shown(block, turn, self._is_automatic)) for block in turn.content]
        return b"".join(parts)

    def results(self, turn: Turn) -> bytes:
        """Return the events of the blocks with the results of a turn."""
        return b"".join(self._whole(block) for block in _shown_results(turn))

    def end(self, turns: list[Turn], ending: Ending) -> bytes:
        """Return the last events: the stop reason, and the usage of all turns."""
        parts = [] if self._started else [self._begin({})]
        if ending.note:
            parts.append(self._whole({"type": "text", "text": ending.note}))
        sequence = turns[-1].head.get("stop_sequence") if turns else None
        delta = {"stop_reason": _stop_reason(turns, ending), "stop_sequence": sequence}
        last = {"type": "message_delta", "delta": delta, "usage": _whole_usage(turns)}
        parts.append(named({**last, "toolbus": ending.about}))
        parts.append(named({"type": "message_stop"}))
        return b"".join(parts)

    def _begin(self, message: Json) -> bytes:
        usage = message.get("usage")
        self._usage = usage if isinstance(usage, dict) else {}
        self._head = {name: each for name, each in message.items() if name not in _OF_TURN}
        if self._started:
            return b""
        self._started = True
        shown = {"type": "message", "role": "assistant", "model": "", **self._head}
        shown |= {"id": _response_id(self._run), "content": []}
        shown |= {"stop_reason": None, "stop_sequence": None}
        shown["usage"] = {"input_tokens": 0, "output_tokens": 0, **self._usage}
        return named({"type": "message_start", "message": shown})

    def _block(self, index: Any, block: Any) -> bytes:
        if not isinstance(block, dict) or not isinstance(index, int) or index in self._blocks:
            raise UpstreamInvalidError(
                "The provider's stream has an invalid content block. Continue the run."
            )
        self._blocks[index] = dict(block)
        if block.get("type") == "tool_use":
            self._inputs[index] = ""
        return self._open(_shown(block, None, self._is_automatic), index)

    def _open(self, shown: Json, index: Any = None) -> bytes:
        at, self._count = self._count, self._count + 1
        if index is not None:
            self._indexes[index] = at
        return named({"type": "content_block_start", "index": at, "content_block": shown})

    def _delta(self, index: Any, event: Json) -> bytes:
        block, delta = self._blocks.get(index), event.get("delta")
        if block is None or not isinstance(delta, dict):
            return b""
        kind = text_of(delta.get("type"))
        if kind == "input_json_delta" and index in self._inputs:
            self._inputs[index] += text_of(delta.get("partial_json"))
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        elif kind in _DELTAS:
            name = _DELTAS[kind]
            block[name] = text_of(block.get(name)) + text_of(delta.get(name))
        return self._shifted(event)

    def _shifted(self, event: Json) -> bytes:
        at = self._indexes.get(event.get("index"))
        return b"" if at is None else named({**event, "index": at})

    def _note_end(self, event: Json) -> None:
        delta, usage = event.get("delta"), event.get("usage")
        if isinstance(usage, dict):
            self._usage |= {name: each for name, each in usage.items() if each is not None}
        if isinstance(delta, dict) and delta.get("stop_reason"):
            self._head |= {name: delta.get(name) for name in ("stop_reason", "stop_sequence")}
            self._ended = True

    def _whole(self, block: Json) -> bytes:
        """Return the events of a complete block."""
        at, opened = self._count, {**block}
        deltas: list[Json] = []
        if block.get("type") == "text":
            opened["text"] = ""
            deltas.append({"type": "text_delta", "text": block.get("text", "")})
        elif block.get("type") in ("tool_use", USE):
            opened["input"] = {}
            text = encode(block.get("input", {})).decode()
            deltas.append({"type": "input_json_delta", "partial_json": text})
        elif block.get("type") == "thinking":
            opened |= {"thinking": "", "signature": ""}
            deltas += [
                {"type": f"{kind}_delta", kind: block.get(kind, "")}
                for kind in ("thinking", "signature")
            ]
        parts = [self._open(opened)]
        parts += [
            named({"type": "content_block_delta", "index": at, "delta": each}) for each in deltas
        ]
        return b"".join(parts) + named({"type": "content_block_stop", "index": at})


stream = MessagesStream
_OF_TURN = ("content", "usage", "id")


def _turn(head: Json, blocks: list[Json], usage: object) -> Turn:
    calls = [
        Suggested(
            text_of(block.get("id")),
            text_of(block.get("name")),
            encode(block.get("input") or {}).decode(),
        )
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    head = {name: each for name, each in head.items() if name not in _OF_TURN}
    return Turn(head, blocks, checked(calls), usage if isinstance(usage, dict) else {})


def _split(blocks: list[Json]) -> tuple[list[Json], list[Json]]:
    """Return the messages of an assistant message with executed calls, and its last results."""
    messages: list[Json] = []
    spoken: list[Json] = []
    results: list[Json] = []
    executed = {
        text_of(block.get("id"))
        for block in blocks
        if block.get("type") == USE and text_of(block.get("id")).startswith(EXECUTED)
    }
    for block in blocks:
        if block.get("type") == RESULT and text_of(block.get("tool_use_id")) in executed:
            results.append(_restored_result(block))
            continue
        if results:  # the next turn begins
            messages += [
                {"role": "assistant", "content": spoken},
                {"role": "user", "content": results},
            ]
            spoken, results = [], []
        if block.get("type") == USE and text_of(block.get("id")) in executed:
            call_id = block["id"].removeprefix(EXECUTED)
            spoken.append(
                {"type": "tool_use", "id": call_id}
                | {name: block.get(name) for name in ("name", "input")}
            )
        else:
            spoken.append(block)
    if spoken:
        messages.append({"role": "assistant", "content": spoken})
    return messages, results


def _restored_result(block: Json) -> Json:
    text = "\n".join(text_of(each.get("text")) for each in objects(block.get("content")))
    call_id = text_of(block["tool_use_id"]).removeprefix(EXECUTED)
    found = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    return {**found, "is_error": True} if block.get("is_error") else found


def _result(call: Suggested, turn: Turn) -> Json:
    result: Result = turn.results[call.call_id]
    found = {"type": "tool_result", "tool_use_id": call.call_id, "content": result.text}
    return {**found, "is_error": True} if result.failed else found


def _shown(block: Json, turn: Turn | None, is_automatic: IsAutomatic) -> Json:
    """Return a block for the client. A call that the gateway executes becomes `mcp_tool_use`."""
    call_id, name = text_of(block.get("id")), text_of(block.get("name"))
    if block.get("type") != "tool_use" or not is_executed(call_id, name, turn, is_automatic):
        return block
    return {**block, "type": USE, "id": f"{EXECUTED}{call_id}", "server_name": SERVER}


def _shown_results(turn: Turn) -> list[Json]:
    return [
        {
            "type": RESULT,
            "tool_use_id": f"{EXECUTED}{call.call_id}",
            "is_error": turn.results[call.call_id].failed,
            "content": [{"type": "text", "text": turn.results[call.call_id].text}],
        }
        for call in turn.calls
        if call.call_id in turn.results
    ]


def _stop_reason(turns: list[Turn], ending: Ending) -> str:
    if ending.limit:
        return "max_tokens"
    return text_of(turns[-1].head.get("stop_reason")) if turns else "end_turn"


def _whole_usage(turns: list[Turn]) -> Json:
    return {"input_tokens": 0, "output_tokens": 0, **summed(turns)}


def _response_id(run: str) -> str:
    return f"msg_{run}"
