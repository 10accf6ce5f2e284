"""Replies of the mock provider in the form of each API, from the published schemas.

The first part of a generated text is the text of the caller's last message, so that a load
generator can check every reply; the other parts are `w1`, `w2` and so on.
"""

import base64
import struct
from dataclasses import dataclass, field
from typing import Any

import msgspec

from harness.models import scripted_calls as scripts

encode = msgspec.json.Encoder().encode
CHAT, RESPONSES, MESSAGES = "/chat/completions", "/responses", "/messages"
EMBEDDINGS, COUNT_TOKENS, MODELS = "/embeddings", "/messages/count_tokens", "/models"
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
CREATED = 1_700_000_000
DIMENSIONS = 4
DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request to the mock provider, with the options of `harness.models.mock_provider`."""

    number: int
    path: str
    body: Json
    size: int
    options: dict[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        """The number of parts of the generated text. The caller can limit it."""
        requested = self.options.get("chunks", 5)
        limits: list[int] = [self.body[name] for name in LIMITS if self.body.get(name) is not None]
        return min([requested, *limits])

    @property
    def texts(self) -> list[str]:
        """The parts of the generated text."""
        return [f"{_last_text(self.body)} ", *(f"w{each} " for each in range(1, self.parts))]

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of this request; `input` includes `cached`."""
        if self.path == COUNT_TOKENS:
            return {}
        output = 0 if self.path == EMBEDDINGS else self.options.get("output", self.parts)
        return {
            "input": self.options.get("input", max(1, self.size // 8)),
            "cached": self.options.get("cached", 0),
            "output": output,
        }

    @property
    def limited(self) -> bool:
        """Whether the caller's limit made the text shorter."""
        return self.parts < self.options.get("chunks", 5)

    @property
    def calls(self) -> list[Json]:
        """The scripted tool calls of this response."""
        return scripts.next_calls(self.body)

    @property
    def model(self) -> str:
        """The requested model."""
        return str(self.body.get("model", ""))


def reply(request: Request) -> bytes:
    """Return the body of a response that is not streamed."""
    return encode(_REPLIES[request.path](request))


def stream(request: Request) -> tuple[bytes, list[bytes], bytes]:
    """Return the event stream before the first part of the text, the parts, and the rest."""
    return _STREAMS[request.path](request)


def error(path: str, status: int, message: str) -> bytes:
    """Return the body of an error in the form of the API of a path."""
    if path.startswith(MESSAGES):
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        fault = {"type": kinds.get(status, "api_error"), "message": message}
        return encode({"type": "error", "error": fault, "request_id": "req_mock"})
    kinds = {401: "authentication_error", 429: "rate_limit_exceeded"}
    kind = kinds.get(status, "server_error")
    return encode({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _last_text(body: Json) -> str:
    content = body.get("input") if "input" in body else body.get("messages", [{}])[-1]
    while not isinstance(content, str):
        if isinstance(content, list):
            content = content[-1] if content else ""
        elif isinstance(content, dict):
            content = content.get("content", content.get("text", ""))
        else:
            return ""
    return content[-64:]


# -- chat completions ------------------------------------------------------------------------------


def _chat_usage(request: Request) -> Json:
    used = request.usage
    return {
        "prompt_tokens": used["input"],
        "completion_tokens": used["output"],
        "total_tokens": used["input"] + used["output"],
        "prompt_tokens_details": {"cached_tokens": used["cached"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _reason(request: Request) -> str:
    if request.calls:
        return "tool_calls"
    return "length" if request.limited else "stop"


def _chat(request: Request) -> Json:
    text = "".join(request.texts)
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if request.calls:
        message["tool_calls"] = scripts.chat_calls(request.calls)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(request)}
    return {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": request.model,
        "choices": [choice],
        **({} if "silent" in request.options else {"usage": _chat_usage(request)}),
    }


def _chat_stream(request: Request) -> tuple[bytes, list[bytes], bytes]:
    head = {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.model,
    }
    reported = (request.body.get("stream_options") or {}).get("include_usage")
    reported = reported and "silent" not in request.options
    empty = {"usage": None} if reported else {}

    def event(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _data({**head, "choices": [choice], **empty})

    rest = b"".join(map(event, scripts.chat_deltas(request.calls)))
    rest += event({}, _reason(request))
    if reported:
        rest += _data({**head, "choices": [], "usage": _chat_usage(request)})
    parts = [event({"content": text}) for text in request.texts]
    return event({"role": "assistant", "content": ""}), parts, rest + DONE


# -- responses -------------------------------------------------------------------------------------


def _response(request: Request, status: str, output: list[Json]) -> Json:
    used = request.usage
    usage = {
        "input_tokens": used["input"],
        "input_tokens_details": {"cached_tokens": used["cached"], "cache_write_tokens": 0},
        "output_tokens": used["output"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["input"] + used["output"],
    }
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": request.body.get("instructions"),
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": usage if status in ("completed", "incomplete") else None,
    }


def _item(request: Request, status: str, content: list[Json]) -> Json:
    item = {"type": "message", "role": "assistant", "status": status, "content": content}
    return {"id": f"msg_{request.number}", **item}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _status(request: Request) -> str:
    return "incomplete" if request.limited else "completed"


def _whole_response(request: Request) -> Json:
    status, text = _status(request), _part("".join(request.texts))
    items = [_item(request, status, [text]), *scripts.response_items(request.calls)]
    return _response(request, status, items)


def _response_stream(request: Request) -> tuple[bytes, list[bytes], bytes]:
    numbers = iter(range(10_000_000))
    place: Json = {"item_id": f"msg_{request.number}", "output_index": 0, "content_index": 0}

    def event(kind: str, **fields: Any) -> bytes:
        return _named(kind, {"type": kind, "sequence_number": next(numbers), **fields})

    started = _response(request, "in_progress", [])
    opening = _item(request, "in_progress", [])
    before = [
        event("response.created", response=started),
        event("response.in_progress", response=started),
        event("response.output_item.added", output_index=0, item=opening),
        event("response.content_part.added", **place, part=_part("")),
    ]
    parts = [
        event("response.output_text.delta", **place, delta=text, logprobs=[])
        for text in request.texts
    ]
    status, text = _status(request), "".join(request.texts)
    item = _item(request, status, [_part(text)])
    ended = _response(request, status, [item, *scripts.response_items(request.calls)])
    after = [
        event("response.output_text.done", **place, text=text, logprobs=[]),
        event("response.content_part.done", **place, part=_part(text)),
        event("response.output_item.done", output_index=0, item=item),
        scripts.response_events(request.calls, 1, event),
        event(f"response.{status}", response=ended),
    ]
    return b"".join(before), parts, b"".join(after)


# -- messages --------------------------------------------------------------------------------------


def _message_usage(request: Request) -> Json:
    used = request.usage
    return {
        "input_tokens": used["input"] - used["cached"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used["cached"],
        "output_tokens": used["output"],
    }


def _message(request: Request, content: list[Json], reason: str | None, usage: Json) -> Json:
    return {
        "id": f"msg_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop_reason(request: Request) -> str:
    if request.calls:
        return "tool_use"
    return "max_tokens" if request.limited else "end_turn"


def _whole_message(request: Request) -> Json:
    text = {"type": "text", "text": "".join(request.texts), "citations": None}
    content = [text, *scripts.message_blocks(request.calls)]
    return _message(request, content, _stop_reason(request), _message_usage(request))


def _message_stream(request: Request) -> tuple[bytes, list[bytes], bytes]:
    started = _message(request, [], None, {**_message_usage(request), "output_tokens": 1})
    block = {"type": "text", "text": ""}

    def event(kind: str, **fields: Any) -> bytes:
        return _named(kind, {"type": kind, **fields})

    before = [
        event("message_start", message=started),
        event("content_block_start", index=0, content_block=block),
        event("ping"),
    ]
    parts = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        for text in request.texts
    ]
    ended = {"stop_reason": _stop_reason(request), "stop_sequence": None}
    output = {"output_tokens": request.usage["output"]}
    after = [
        event("content_block_stop", index=0),
        scripts.message_events(request.calls, 1, event),
        event("message_delta", delta=ended, usage=output),
        event("message_stop"),
    ]
    return b"".join(before), parts, b"".join(after)


# -- embeddings and tokens -------------------------------------------------------------------------


def _embeddings(request: Request) -> Json:
    given = request.body.get("input", "")
    texts = given if isinstance(given, list) and given and isinstance(given[0], str) else [given]
    vector: Any = [0.5] * DIMENSIONS
    if request.body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
    used = request.usage["input"]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index in range(len(texts))
        ],
        "model": request.model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _token_count(request: Request) -> Json:
    return {"input_tokens": request.options.get("input", max(1, request.size // 8))}


def _data(body: Json) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def _named(event: str, body: Json) -> bytes:
    return b"event: " + event.encode() + b"\n" + _data(body)


_REPLIES = {
    CHAT: _chat,
    RESPONSES: _whole_response,
    MESSAGES: _whole_message,
    EMBEDDINGS: _embeddings,
    COUNT_TOKENS: _token_count,
}
_STREAMS = {CHAT: _chat_stream, RESPONSES: _response_stream, MESSAGES: _message_stream}
