"""Runs in the form of the chat completions API.

This API has no form for a call that the server has executed. Such calls and their results are in
the extension member `toolbus` of a chunk, or of the response. The text of all turns is one message.
"""

import re
from secrets import token_hex
from time import time

from toolbus_codemode.agent.dialects.base import (
    Ending,
    IsAutomatic,
    Json,
    Suggested,
    Turn,
    checked,
    encode,
    joined_text,
    objects,
    parsed_response,
    summed,
    text_of,
)
from toolbus_codemode.agent.dialects.events import DONE, unnamed
from toolbus_common.errors import InvalidError, UpstreamInvalidError

PENDING = re.compile(r"tb_([0-9a-f]{1,64})_(\d{1,3})")  # the id of a call for the client
MAX_EARLIER = 16  # runs whose turns are restored in one request
_BETWEEN = "\n\n"  # the texts of two turns
# Fields of a message that the next request repeats, and their types.
_KEPT: dict[str, type] = {"refusal": str, "thinking_blocks": list}


def conversation(body: Json, turns: list[Turn]) -> Json:
    """Return the body of the next request. Raises `InvalidError`."""
    if body.get("n") not in (None, 1):
        raise InvalidError(
            "'n' must be 1 in agent mode, because a run continues with one response. Remove 'n', "
            "or send the header 'x-toolbus-agent: off'."
        )
    return {**body, "messages": [*body["messages"], *messages_of(turns)]}


def messages_of(turns: list[Turn]) -> list[Json]:
    """Return the messages of these turns: the model's message, and the results of its calls."""
    found: list[Json] = []
    for turn in turns:
        found += turn.content
        found += [
            {
                "role": "tool",
                "tool_call_id": call.call_id,
                "content": turn.results[call.call_id].text,
            }
            for call in turn.calls
            if call.call_id in turn.results
        ]
    return found


def pending_runs(body: Json) -> list[str]:
    """Return the newest runs whose pending calls are in the conversation, without duplicates."""
    found: dict[str, None] = {}
    for message in reversed(body["messages"]):
        for call in objects(message.get("tool_calls")):
            match = PENDING.fullmatch(text_of(call.get("id")))
            if match:
                found[match[1]] = None
        if len(found) >= MAX_EARLIER:
            break
    return list(found)[:MAX_EARLIER]


def restored(body: Json, runs: dict[str, list[Turn]]) -> Json:
    """Return the body with the turns of earlier runs in place of the message that ended each run.

    The client received only that message, and ids that name the run. It returns both. A run is
    restored once; a repetition of its message stays as it is.
    """
    messages: list[Json] = []
    left = dict(runs)
    ids: dict[str, str] = {}
    for message in body["messages"]:
        calls = objects(message.get("tool_calls"))
        matches = [PENDING.fullmatch(text_of(call.get("id"))) for call in calls]
        run = next((match[1] for match in matches if match and match[1] in left), "")
        if run:
            turns = left.pop(run)
            ids |= {pending_id(run, at): call.call_id for at, call in enumerate(turns[-1].calls)}
            messages += messages_of(turns)
        elif message.get("role") == "tool":
            call_id = text_of(message.get("tool_call_id"))
            messages.append({**message, "tool_call_id": ids.get(call_id, call_id)})
        else:
            for call in calls:
                ids.pop(text_of(call.get("id")), None)
            messages.append(message)
    return {**body, "messages": messages}


def pending_id(run: str, position: int) -> str:
    """Return the id of a call for the client, by the call's position in its turn."""
    return f"tb_{run}_{position}"


def read(response: bytes) -> Turn:
    """Return the turn of a response. Raises `UpstreamInvalidError`."""
    found = parsed_response(response)
    choices = objects(found.get("choices"))
    message = choices[0].get("message") if choices else None
    if not isinstance(message, dict):
        raise UpstreamInvalidError(
            "The provider's response has no message. Check the provider's 'url' and 'apis'."
        )
    usage = found.pop("usage", None)
    head = {name: value for name, value in found.items() if name != "choices"}
    head["finish_reason"] = choices[0].get("finish_reason")
    return _turn(head, message, usage)


def body(turns: list[Turn], ending: Ending, _is_automatic: IsAutomatic) -> bytes:
    """Return the response of a run: one message with the text of all turns."""
    last = turns[-1] if turns else None
    head = dict(last.head) if last else _blank_head()
    reason = head.pop("finish_reason", None)
    texts = [joined_text(turn.content[0].get("content")) for turn in turns]
    text = _BETWEEN.join(each for each in (*texts, ending.note) if each)
    message: Json = {"role": "assistant", "content": text or None, "refusal": None}
    if last and last.content[0].get("refusal"):
        message["refusal"] = last.content[0]["refusal"]
    if last and ending.pending:
        message["tool_calls"] = _pending_calls(last, ending)
    executed = [
        {**_shown(call), **_outcome(turn, call.call_id)}
        for turn in turns
        for call in turn.calls
        if call.call_id in turn.results
    ]
    head |= {
        "id": _response_id(ending.run),
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": _finish_reason(reason, ending),
                "logprobs": None,
            }
        ],
        "usage": summed(turns),
        "toolbus": {**ending.about, "calls": executed},
    }
    return encode(head)


class ChatStream:
    """The chunks of one run. Parts of tool calls are withheld until their turn has ended."""

    def __init__(self, run: str, body: Json, _is_automatic: IsAutomatic) -> None:
        options = body.get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._run = run
        self._head: Json = {}
        self._has_text = False
        self._began = False
        self.begin_turn()

    def begin_turn(self) -> None:
        """Prepare for the chunks of another response."""
        self._texts: list[str] = []
        self._calls: list[Json] = []
        self._open: dict[int, Json] = {}  # the last call with each index
        self._kept: Json = {}
        self._reason: str | None = None
        self._usage: Json = {}

    def feed(self, data: bytes) -> bytes:
        """Return the client's chunks for one chunk."""
        if data == DONE:
            return b""
        chunk = parsed_response(data)
        if chunk.get("error"):
            raise UpstreamInvalidError(
                "The provider reported an error in its stream. Continue the run."
            )
        self._note_head(chunk)
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        parts: list[bytes] = []
        for choice in objects(chunk.get("choices"))[:1]:
            delta = choice.get("delta")
            if isinstance(delta, dict):
                parts.append(self._delta(delta))
            self._reason = text_of(choice.get("finish_reason")) or self._reason
        return b"".join(parts)

    def turn(self) -> Turn:
        """Return the turn. Raises `UpstreamInvalidError` if its stream has no finish reason."""
        if self._reason is None:
            raise UpstreamInvalidError("The provider's stream ended early. Continue the run.")
        message: Json = {"content": "".join(self._texts) or None, **self._kept}
        if self._calls:
            message["tool_calls"] = self._calls
        return _turn({**self._head, "finish_reason": self._reason}, message, self._usage)

    def replayed(self, turn: Turn) -> bytes:
        """Return the chunks of an earlier turn."""
        self.begin_turn()
        self._note_head(turn.head)
        text = joined_text(turn.content[0].get("content"))
        return self._delta({"role": "assistant", "content": text}) if text else b""

    def results(self, turn: Turn) -> bytes:
        """Return the chunks with the executed calls and their results."""
        return b"".join(
            unnamed({**self._chunk({}), "toolbus": {"call": {**_shown(call), **outcome}}})
            for call in turn.calls
            if (outcome := _outcome(turn, call.call_id))
        )

    def end(self, turns: list[Turn], ending: Ending) -> bytes:
        """Return the last chunks: the calls for the client, the finish reason and the usage."""
        parts: list[bytes] = []
        if ending.note:
            self._texts = []
            parts.append(self._delta({"content": ending.note}))
        reason = turns[-1].head.get("finish_reason") if turns else None
        if ending.pending:
            calls = _pending_calls(turns[-1], ending)
            for index, call in enumerate(calls):
                parts.append(unnamed(self._chunk({"tool_calls": [{"index": index, **call}]})))
        last = self._chunk({}, _finish_reason(reason, ending))
        parts.append(unnamed({**last, "toolbus": ending.about}))
        if self._wants_usage:
            parts.append(unnamed({**self._chunk({}), "choices": [], "usage": summed(turns)}))
        return b"".join(parts) + b"data: [DONE]\n\n"

    def _note_head(self, chunk: Json) -> None:
        if not self._head:
            omitted = ("choices", "usage", "finish_reason")
            self._head = {name: each for name, each in chunk.items() if name not in omitted}
            self._head |= {"id": _response_id(self._run), "object": "chat.completion.chunk"}

    def _delta(self, delta: Json) -> bytes:
        """Record a part of the message, and return the chunk for the client."""
        for part in objects(delta.get("tool_calls")):
            self._add_call(part)
        for name, kind in _KEPT.items():
            if isinstance(delta.get(name), kind):
                self._kept[name] = self._kept.get(name, kind()) + delta[name]
        shown = {name: each for name, each in delta.items() if name != "tool_calls"}
        if text := joined_text(delta.get("content")):
            shown["content"] = text
            if self._has_text and not self._texts:
                shown["content"] = f"{_BETWEEN}{text}"
            self._texts.append(text)
            self._has_text = True
        if self._began:
            shown.pop("role", None)
        if not any(shown.values()):
            return b""
        self._began = True
        return unnamed(self._chunk(shown))

    def _add_call(self, part: Json) -> None:
        function = part.get("function")
        name = text_of(function.get("name")) if isinstance(function, dict) else ""
        text = text_of(function.get("arguments")) if isinstance(function, dict) else ""
        index = part.get("index")
        call_id = text_of(part.get("id"))
        if index is None:  # some servers send no index
            index = len(self._calls) if name else max(self._open, default=0)
        elif not isinstance(index, int):
            raise UpstreamInvalidError(
                "The provider's stream has an invalid tool call. Continue the run."
            )
        call = self._open.get(index)
        # Some servers send the same index for all calls.
        if call is None or (name and call_id and call_id != call["id"]):
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            self._open[index] = call
            self._calls.append(call)
        call["function"]["arguments"] += text

    def _chunk(self, delta: Json, reason: str | None = None) -> Json:
        head = self._head or {**_blank_head(), "id": _response_id(self._run)}
        head["object"] = "chat.completion.chunk"
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


stream = ChatStream


def _turn(head: Json, message: Json, usage: object) -> Turn:
    calls: list[Json] = []
    for call in objects(message.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, dict):
            shown = {"name": text_of(function.get("name")), "arguments": _arguments(function)}
            call_id = text_of(call.get("id")) or f"call_{token_hex(8)}"
            calls.append({"id": call_id, "type": "function", "function": shown})
    kept: Json = {"role": "assistant", "content": message.get("content")}
    kept |= {name: message[name] for name in _KEPT if message.get(name)}
    if calls:
        kept["tool_calls"] = calls
    elif kept["content"] is None:
        kept["content"] = ""
    suggested = [Suggested(each["id"], **each["function"]) for each in calls]
    return Turn(head, [kept], checked(suggested), usage if isinstance(usage, dict) else {})


def _arguments(function: Json) -> str:
    found = function.get("arguments")
    return encode(found).decode() if isinstance(found, dict) else text_of(found)


def _pending_calls(turn: Turn, ending: Ending) -> list[Json]:
    return [
        {
            "id": pending_id(ending.run, at),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for at, call in enumerate(turn.calls)
        if call.call_id in ending.pending
    ]


def _shown(call: Suggested) -> Json:
    return {"id": call.call_id, "name": call.name, "arguments": call.arguments}


def _outcome(turn: Turn, call_id: str) -> Json:
    found = turn.results.get(call_id)
    return {"result": found.text, "is_error": found.failed} if found else {}


def _finish_reason(reason: object, ending: Ending) -> str:
    if ending.limit:
        return "length"
    return "tool_calls" if ending.pending else text_of(reason) or "stop"


def _response_id(run: str) -> str:
    return f"chatcmpl-{run}"


def _blank_head() -> Json:
    return {"object": "chat.completion", "created": int(time()), "model": ""}
