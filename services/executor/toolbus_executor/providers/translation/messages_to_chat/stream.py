"""Translation of a stream of the chat completions API to the messages API."""

from typing import Any

from toolbus_executor.providers.translation.apis import chat, messages
from toolbus_executor.providers.translation.chat_stream import ChatStreamTranslation
from toolbus_executor.providers.translation.messages_to_chat.response import head, stop_reason
from toolbus_executor.providers.translation.sse import named

TEXT, THINKING, TOOL = "text", "thinking", "tool_use"


class MessageStream(ChatStreamTranslation):
    """The stream for the client: one message whose blocks follow each other.

    Invariant: at most one block is open.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused = False
        self._open = ""  # the type of the open block
        self._index = -1  # of the last block

    def _start(self, chunk: chat.Response, parts: list[bytes]) -> None:
        parts.append(named({"type": "message_start", "message": head(chunk.id, chunk.model)}))

    def _finished(self, reason: str) -> bytes:
        reason = stop_reason(reason, bool(self._calls.indexes), self._refused)
        usage = messages.usage_body(chat.usage_of(self._usage))
        delta = {"stop_reason": reason, "stop_sequence": None}
        return named({"type": "message_delta", "delta": delta, "usage": usage}) + named(
            {"type": "message_stop"}
        )

    def _failure(self, message: str) -> bytes:
        return named(messages.error_body(message))

    def _delta(self, delta: chat.Reply, parts: list[bytes]) -> None:
        if thought := delta.thought:
            self._switch(THINKING, {"thinking": "", "signature": ""}, parts)
            self._add({"type": "thinking_delta", "thinking": thought}, parts)
        for text in (delta.content, delta.refusal):
            if text:
                self._switch(TEXT, {"text": ""}, parts)
                self._add({"type": "text_delta", "text": text}, parts)
        self._refused = self._refused or bool(delta.refusal)
        for call in delta.tool_calls or ():
            self._tool_call(call, parts)

    def _tool_call(self, call: chat.ToolCall, parts: list[bytes]) -> None:
        if self._calls.begins(call):
            self._close(parts)
            start = {"id": self._calls.id, "name": self._calls.name, "input": {}}
            self._switch(TOOL, start, parts)
        if arguments := self._calls.arguments(call, is_open=self._open == TOOL):
            self._add({"type": "input_json_delta", "partial_json": arguments}, parts)

    def _switch(self, kind: str, start: dict[str, Any], parts: list[bytes]) -> None:
        """Open a block of this type unless it is open."""
        if self._open == kind:
            return
        self._close(parts)
        self._open = kind
        self._index += 1
        block = {"type": kind, **start}
        event = {"type": "content_block_start", "index": self._index, "content_block": block}
        parts.append(named(event))

    def _add(self, delta: dict[str, Any], parts: list[bytes]) -> None:
        event = {"type": "content_block_delta", "index": self._index, "delta": delta}
        parts.append(named(event))

    def _close(self, parts: list[bytes]) -> None:
        if self._open:
            self._open = ""
            parts.append(named({"type": "content_block_stop", "index": self._index}))
