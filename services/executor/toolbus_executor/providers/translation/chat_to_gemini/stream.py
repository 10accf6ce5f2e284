"""Translation of a stream of Gemini to the chat completions API."""

from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.providers.translation.apis import gemini
from toolbus_executor.providers.translation.body import decoder
from toolbus_executor.providers.translation.chat_to_gemini.response import (
    blocked,
    finish_reason,
    parts_of,
    thinking_block,
    tool_call,
)
from toolbus_executor.providers.translation.chunk_writer import ChunkWriter
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.translation.sent_errors import error_in
from toolbus_executor.providers.translation.sse import CUT

_decode = decoder(gemini.Response)


class GeminiStream:
    """The stream for the client: chunks of one choice. It notes the facts of the stream."""

    def __init__(self, *, include_usage: bool) -> None:
        self.facts: DecodedFacts | None = DecodedFacts()
        self.failure: ToolbusError | None = None
        self._facts = self.facts
        self._chunks = ChunkWriter(include_usage=include_usage)
        self._calls = self._blocks = 0
        self._thoughts: list[str] = []  # since the last thinking block
        self._candidate: gemini.Candidate | None = None  # the one with the finish reason
        self._refused = self._ended = False

    def feed(self, _event: str, data: bytes) -> bytes:
        """Return the client's chunks for one event."""
        if self._ended or not data:
            return b""
        response = _decode(data)
        if response.error is not None:
            return self._failed(error_in(response.error))
        parts: list[bytes] = []
        if not self._chunks.started:
            parts.append(self._chunks.start(response.response_id, response.model_version))
        if not response.candidates and (refusal := blocked(response)):
            self._refused = True
            self._facts.note_reason("blocked")
            parts.append(self._chunks.chunk({"refusal": refusal}))
        for candidate in response.candidates or ():
            if candidate.index:
                raise UpstreamInvalidError(
                    "The provider sent several candidates, but one was requested. Check the "
                    "provider's 'url' and 'apis'."
                )
            for part in parts_of(candidate):
                self._part(part, parts)
            if candidate.finish_reason:
                self._candidate = candidate
                self._facts.note_reason(candidate.finish_reason)
        is_final = self._candidate is not None or self._refused
        self._facts.note_usage(gemini.usage_of(response.usage_metadata), is_final=is_final)
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the last chunks; an error if the provider's stream has no finish reason."""
        if self._ended:
            return b""
        if self._candidate is not None:
            try:
                reason = finish_reason(self._candidate, has_calls=bool(self._calls))
            except UpstreamInvalidError as error:
                return self._failed(error)
        elif self._refused:
            reason = "content_filter"
        else:
            return self._failed(UpstreamDeadError(CUT))
        self._ended = True
        usage = self._facts.facts.usage or Usage()
        return self._chunks.chunk({}, reason) + self._chunks.end(usage)

    def _part(self, part: gemini.Part, parts: list[bytes]) -> None:
        text, call = part.text, part.function_call
        if part.thought:
            if text:
                self._thoughts.append(text)
                self._add({"reasoning_content": text}, text, parts)
            return
        if part.thought_signature:
            block = thinking_block(part, self._calls, "".join(self._thoughts))
            self._thoughts.clear()
            # Clients merge the parts of a list by their index.
            block = {"index": self._blocks, **block}
            self._blocks += 1
            parts.append(self._chunks.chunk({"thinking_blocks": [block]}))
        if call is not None:
            self._facts.note_call()
            made: dict[str, Any] = {"index": self._calls, **tool_call(call, part.thought_signature)}
            self._calls += 1
            self._add({"tool_calls": [made]}, made["function"]["arguments"], parts)
        elif text:
            self._add({"content": text}, text, parts)

    def _add(self, delta: dict[str, Any], text: str, parts: list[bytes]) -> None:
        self._facts.note_text(text)
        parts.append(self._chunks.chunk(delta))

    def _failed(self, error: ToolbusError) -> bytes:
        self._ended, self.failure = True, error
        return self._chunks.failed(error.reason)
