"""The chat completions API: what translations read of it, and the bodies that they write.

Source: the OpenAPI document of OpenAI. `reasoning_content` and `reasoning` are extensions of
DeepSeek, vLLM, llama.cpp and OpenRouter; a list of parts as `content` of a response is an
extension of Mistral. `thinking_blocks` is an extension of LiteLLM: the thinking blocks of the
messages API, which a client returns unchanged so that the model can continue. `is_error` of a tool
result is our own extension, for messages that are translated twice. `extra_content` of a tool call
is an extension of Google.
"""

from math import isfinite
from secrets import token_hex
from time import time
from typing import Any

from msgspec import Struct

from toolbus_common.contracts import model_calls

MAX_EFFORTS = {"xhigh": "high", "max": "high"}  # the efforts that not all providers accept


class FunctionCall(Struct):
    """The function of a tool call. In a stream, `arguments` is a part of the text."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    """A tool call of a message, or a part of it in a stream."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    extra_content: Any = None


class Url(Struct):
    """The URL of an image, or a data URL."""

    url: str


class File(Struct):
    """A file, as a data URL or as the id of an uploaded file."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Audio(Struct):
    """A recording in base64."""

    data: str | None = None
    format: str | None = None


class Part(Struct):
    """A part of the content of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Url | None = None
    file: File | None = None
    input_audio: Audio | None = None


class Message(Struct):
    """A message of a request."""

    role: str
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None
    thinking_blocks: list[dict[str, Any]] | None = None
    is_error: bool | None = None


class Function(Struct):
    """The function of a tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    """A tool. Only functions have `function`."""

    type: str
    function: Function | None = None


class FunctionName(Struct):
    """The name of a function."""

    name: str


class AllowedTools(Struct):
    """The tools to which a tool choice is restricted."""

    mode: str
    tools: list[Tool]


class ToolChoice(Struct):
    """A tool choice that names tools."""

    type: str
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Struct):
    """The schema of a response format."""

    schema: dict[str, Any] | None = None
    name: str | None = None


class ResponseFormat(Struct):
    """The form of the response."""

    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    """Options of a stream."""

    include_usage: bool | None = None


class Request(Struct):
    """A request."""

    messages: list[Message]
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None


class Thinking(Struct):
    """The configuration of thinking, as in the messages API (an extension of LiteLLM)."""

    type: str
    budget_tokens: int | None = None


class GeminiRequest(Request):
    """A request with the fields that only Gemini can carry."""

    thinking: Thinking | None = None
    seed: int | None = None


class PromptDetails(Struct):
    """Details of the input tokens."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class CompletionDetails(Struct):
    """Details of the output tokens."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class Usage(Struct):
    """The usage. `prompt_tokens` includes cached tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class ReplyPart(Struct):
    """A part of a reply: a text, or a part of the reasoning."""

    type: str | None = None
    text: str | None = None
    thinking: "list[ReplyPart] | None" = None


class Reply(Struct):
    """The message of a response, or a part of it in a stream."""

    content: str | list[ReplyPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[ToolCall] | None = None
    thinking_blocks: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The text; empty if there is none."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def thought(self) -> str:
        """The reasoning in plain text; empty if there is none."""
        if self.reasoning_content:
            return self.reasoning_content
        if isinstance(self.reasoning, str):
            return self.reasoning
        if not isinstance(self.content, list):
            return ""
        thoughts = [each for part in self.content for each in part.thinking or ()]
        return "".join(each.text or "" for each in thoughts)


class Choice(Struct):
    """A choice of a response. `delta` replaces `message` in a stream."""

    index: int | None = 0
    message: Reply | None = None
    delta: Reply | None = None
    finish_reason: str | None = None


class Response(Struct):
    """A response, or a chunk of a stream."""

    id: str | None = None
    created: float | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None

    @property
    def created_at(self) -> int:
        """The time of creation in seconds; 0 if it is unknown. Some servers send a fraction."""
        return int(self.created) if self.created is not None and isfinite(self.created) else 0


def usage_of(usage: Usage | None) -> model_calls.Usage:
    """Return the token counts."""
    if usage is None:
        return model_calls.Usage()
    prompt = usage.prompt_tokens_details or PromptDetails()
    completion = usage.completion_tokens_details or CompletionDetails()
    return model_calls.Usage(
        input=usage.prompt_tokens or 0,
        cached=prompt.cached_tokens or 0,
        cache_write=prompt.cache_write_tokens or 0,
        output=usage.completion_tokens or 0,
        reasoning=completion.reasoning_tokens or 0,
        audio_input=prompt.audio_tokens or 0,
        image_input=prompt.image_tokens or 0,
        audio_output=completion.audio_tokens or 0,
    )


def usage_body(usage: model_calls.Usage) -> dict[str, Any]:
    """Return the field `usage` of a response."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            **media_input(usage),
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            **media_output(usage),
        },
    }


def media_input(usage: model_calls.Usage) -> dict[str, int]:
    """Return the counts of audio and images in the input that are not 0."""
    found = {"audio_tokens": usage.audio_input, "image_tokens": usage.image_input}
    return {name: count for name, count in found.items() if count}


def media_output(usage: model_calls.Usage) -> dict[str, int]:
    """Return the count of audio in the output, if it is not 0."""
    return {"audio_tokens": usage.audio_output} if usage.audio_output else {}


def error_message(error: Any) -> str:
    """Return the message of an error in a stream; a provider can send any value."""
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else "The provider failed."


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call of a message."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def head(response_id: str | None, model: str | None) -> dict[str, Any]:
    """Return the fields that responses and chunks have in common."""
    return {
        "id": response_id or f"chatcmpl-{token_hex(12)}",
        "created": int(time()),
        "model": model or "",
    }
