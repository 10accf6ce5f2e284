"""Translation of a stream of the messages API to the chat completions API."""

from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.providers.translation.apis import chat, messages
from toolbus_executor.providers.translation.body import decoder, encode
from toolbus_executor.providers.translation.chat_to_messages.response import (
    finish_reason,
    thinking_block,
)
from toolbus_executor.providers.translation.chunk_writer import ChunkWriter
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.translation.sent_errors import error_in
from toolbus_executor.providers.translation.sse import CUT

_decode = decoder(messages.Event)


class ChatStream:
    """The stream for the client: chunks of one choice.

    A thinking block is sent twice: in parts as `reasoning_content`, and at its end as a whole in
    `thinking_blocks`, with its signature.
    """

    facts: DecodedFacts | None = None

    def __init__(self, *, include_usage: bool) -> None:
        self.failure: ToolbusError | None = None
        self._chunks = ChunkWriter(include_usage=include_usage)
        self._usage = messages.Usage()
        self._calls = -1  # the index of the last tool call
        self._without_arguments = False  # whether the open tool call has no arguments
        self._thinking: messages.Block | None = None  # the open thinking block
        self._thoughts: list[str] = []  # the parts of the thinking block's text
        self._blocks = 0  # number of completed thinking blocks
        self._finished = self._ended = False

    def feed(self, _event: str, data: bytes) -> bytes:
        """Return the client's chunks for one event."""
        if self._ended or not data:
            return b""
        event = _decode(data)
        if event.type == "error":
            return self._failed(error_in(event.error))
        started = b"" if self._chunks.started else self._start(event.message)
        return started + self._translated(event)

    def end(self) -> bytes:
        """Return the last chunks; an error if the provider's stream has no stop reason."""
        if self._ended:
            return b""
        if not self._finished:
            return self._failed(UpstreamDeadError(CUT))
        self._ended = True
        return self._chunks.end(messages.usage_of(self._usage))

    def _translated(self, event: messages.Event) -> bytes:
        if event.type == "content_block_delta" and event.delta is not None:
            return self._delta(event.delta)
        if event.type == "content_block_start" and event.content_block is not None:
            return self._block(event.content_block)
        if event.type == "content_block_stop":
            return self._block_stop()
        if event.type == "message_delta":
            return self._message_delta(event)
        return self.end() if event.type == "message_stop" else b""

    def _start(self, message: messages.Response | None) -> bytes:
        message = message or messages.Response()
        self._add_usage(message.usage)
        return self._chunks.start(message.id, message.model)

    def _block(self, block: messages.Block) -> bytes:
        self._thinking = None
        if block.type == "text" and block.text:
            return self._chunks.chunk({"content": block.text})
        if block.type in ("thinking", "redacted_thinking"):
            self._thinking, self._thoughts = block, [block.thinking or ""]
            return (
                self._chunks.chunk({"reasoning_content": block.thinking}) if block.thinking else b""
            )
        if block.type != "tool_use":
            return b""
        self._calls += 1
        self._without_arguments = not block.input
        arguments = encode(block.input).decode() if block.input else ""
        call = chat.tool_call(block.id or f"call_{self._calls}", block.name or "", arguments)
        return self._chunks.chunk({"tool_calls": [{"index": self._calls, **call}]})

    def _delta(self, delta: messages.Delta) -> bytes:
        if delta.type == "text_delta" and delta.text:
            return self._chunks.chunk({"content": delta.text})
        if delta.type == "input_json_delta" and delta.partial_json and self._calls >= 0:
            return self._arguments(delta.partial_json)
        block = self._thinking
        if block is None:
            return b""
        if delta.type == "signature_delta":
            block.signature = (block.signature or "") + (delta.signature or "")
        elif delta.type == "thinking_delta" and delta.thinking:
            self._thoughts.append(delta.thinking)
            return self._chunks.chunk({"reasoning_content": delta.thinking})
        return b""

    def _arguments(self, text: str) -> bytes:
        self._without_arguments = False
        call = {"index": self._calls, "function": {"arguments": text}}
        return self._chunks.chunk({"tool_calls": [call]})

    def _block_stop(self) -> bytes:
        if self._without_arguments:
            return self._arguments("{}")
        if self._thinking is None:
            return b""
        self._thinking.thinking = "".join(self._thoughts)
        block = thinking_block(self._thinking) or {}
        self._thinking = None
        self._blocks += 1
        # Clients merge the parts of a list by their index.
        return self._chunks.chunk({"thinking_blocks": [{"index": self._blocks - 1, **block}]})

    def _message_delta(self, event: messages.Event) -> bytes:
        self._add_usage(event.usage)
        reason = event.delta.stop_reason if event.delta else None
        if reason is None or self._finished:
            return b""
        self._finished = True
        return self._chunks.chunk({}, finish_reason(reason))

    def _add_usage(self, usage: messages.Usage | None) -> None:
        """Replace the counts that this usage contains: all counts are cumulative."""
        if usage is not None:
            for name in usage.__struct_fields__:
                if (value := getattr(usage, name)) is not None:
                    setattr(self._usage, name, value)

    def _failed(self, error: ToolbusError) -> bytes:
        self._ended, self.failure = True, error
        return self._chunks.failed(error.reason)
