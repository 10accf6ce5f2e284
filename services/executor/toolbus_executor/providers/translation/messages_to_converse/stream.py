"""Translation of a stream of the Converse API to the messages API."""

from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.providers.translation.apis import converse, messages
from toolbus_executor.providers.translation.body import decoder
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.translation.messages_to_converse.response import head, stop_reason
from toolbus_executor.providers.translation.sent_errors import exception_of
from toolbus_executor.providers.translation.sse import CUT, named

_decode = decoder(converse.Event)


class ConverseStream:
    """The stream for the client. It notes the facts of the stream.

    Converse opens only the blocks of tool calls explicitly. The usage follows the stop reason, so
    `message_delta` is sent at the end.
    """

    def __init__(self, model: str) -> None:
        self.facts: DecodedFacts | None = DecodedFacts()
        self.failure: ToolbusError | None = None
        self._facts = self.facts
        self._model = model
        self._open = -1  # the provider's index of the open block
        self._index = -1  # of the client's last block
        self._stop_reason: str | None = None
        self._started = self._ended = False

    def feed(self, event: str, data: bytes) -> bytes:
        """Return the client's events for one event. `event` is its type."""
        if self._ended:
            return b""
        source = _decode(data)
        if event.endswith("xception"):
            return self._failed(exception_of(event, source.message))
        parts: list[bytes] = []
        if not self._started:
            self._started = True
            parts.append(named({"type": "message_start", "message": head(self._model)}))
        if event == "contentBlockStart" and source.start is not None:
            self._begin(source, source.start, parts)
        elif event == "contentBlockDelta" and source.delta is not None:
            self._delta(source, source.delta, parts)
        elif event == "contentBlockStop":
            self._close(parts)
        elif event == "messageStop":
            self._close(parts)
            self._stop_reason = source.stop_reason or "end_turn"
            self._facts.note_reason(self._stop_reason)
        elif event == "metadata":
            is_final = self._stop_reason is not None
            self._facts.note_usage(converse.usage_of(source.usage), is_final=is_final)
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the last events; an error if the provider's stream has no stop reason."""
        if self._ended:
            return b""
        if self._stop_reason is None:
            return self._failed(UpstreamDeadError(CUT))
        try:
            reason = stop_reason(self._stop_reason)
        except UpstreamInvalidError as error:
            return self._failed(error)
        self._ended = True
        usage = messages.usage_body(self._facts.facts.usage or Usage())
        delta = {"stop_reason": reason, "stop_sequence": None}
        end = named({"type": "message_delta", "delta": delta, "usage": usage})
        return end + named({"type": "message_stop"})

    def _begin(self, event: converse.Event, start: converse.Block, parts: list[bytes]) -> None:
        call = start.tool_use
        if call is not None:
            self._facts.note_call()
            block = {"type": "tool_use", "id": call.tool_use_id, "name": call.name, "input": {}}
            self._start(event.content_block_index, block, parts)

    def _delta(self, event: converse.Event, delta: converse.Block, parts: list[bytes]) -> None:
        at, reasoning = event.content_block_index, delta.reasoning_content
        if delta.text:
            self._start(at, {"type": "text", "text": ""}, parts)
            self._add({"type": "text_delta", "text": delta.text}, delta.text, parts)
        elif delta.tool_use is not None and isinstance(delta.tool_use.input, str):
            text = delta.tool_use.input
            if text and self._open == at:
                self._add({"type": "input_json_delta", "partial_json": text}, text, parts)
        elif reasoning is not None and reasoning.redacted_content:
            block = {"type": "redacted_thinking", "data": reasoning.redacted_content}
            self._start(at, block, parts)
        elif reasoning is not None:
            self._start(at, {"type": "thinking", "thinking": "", "signature": ""}, parts)
            if text := reasoning.text or "":
                self._add({"type": "thinking_delta", "thinking": text}, text, parts)
            if reasoning.signature:
                signature = {"type": "signature_delta", "signature": reasoning.signature}
                self._add(signature, "", parts)

    def _start(self, at: int, block: dict[str, Any], parts: list[bytes]) -> None:
        """Open a block unless it is open."""
        if self._open == at:
            return
        self._close(parts)
        self._open = at
        self._index += 1
        event = {"type": "content_block_start", "index": self._index, "content_block": block}
        parts.append(named(event))

    def _add(self, delta: dict[str, Any], text: str, parts: list[bytes]) -> None:
        if text:
            self._facts.note_text(text)
        event = {"type": "content_block_delta", "index": self._index, "delta": delta}
        parts.append(named(event))

    def _close(self, parts: list[bytes]) -> None:
        if self._open >= 0:
            self._open = -1
            parts.append(named({"type": "content_block_stop", "index": self._index}))

    def _failed(self, error: ToolbusError) -> bytes:
        self._ended, self.failure = True, error
        return named(messages.error_body(error.reason))
