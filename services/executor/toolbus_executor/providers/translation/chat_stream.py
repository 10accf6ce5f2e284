"""Reading of a stream of the chat completions API, for its translation to another API."""

from abc import ABC, abstractmethod

from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.providers.translation.apis import chat
from toolbus_executor.providers.translation.body import decoder
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.translation.sent_errors import error_in
from toolbus_executor.providers.translation.sse import CUT, DONE_DATA
from toolbus_executor.providers.translation.streamed_calls import StreamedCalls, check_choice

_decode = decoder(chat.Response)


class ChatStreamTranslation(ABC):
    """The translation of one stream of chunks with one choice.

    The client's last events are sent when the provider's stream ends, because its usage follows its
    finish reason.
    """

    facts: DecodedFacts | None = None

    def __init__(self) -> None:
        self.failure: ToolbusError | None = None
        self._calls = StreamedCalls()
        self._finish_reason: str | None = None
        self._usage: chat.Usage | None = None
        self._started = self._ended = False

    def feed(self, _event: str, data: bytes) -> bytes:
        """Return the client's events for one chunk."""
        if self._ended or not data:
            return b""
        if data == DONE_DATA:
            return self.end()
        chunk = _decode(data)
        if chunk.error is not None:
            return self._failed(error_in(chunk.error))
        parts: list[bytes] = []
        if not self._started:
            self._started = True
            self._start(chunk, parts)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            check_choice(choice)
            if choice.delta is not None:
                self._delta(choice.delta, parts)
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason
                self._close(parts)
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the last events: a failure if the provider's stream has no finish reason."""
        if self._ended:
            return b""
        if self._finish_reason is None:
            return self._failed(UpstreamDeadError(CUT))
        self._ended = True
        return self._finished(self._finish_reason)

    def _failed(self, error: ToolbusError) -> bytes:
        self._ended, self.failure = True, error
        return self._failure(error.reason)

    @abstractmethod
    def _start(self, chunk: chat.Response, parts: list[bytes]) -> None:
        """Append the client's first events. `chunk` is the first chunk."""

    @abstractmethod
    def _delta(self, delta: chat.Reply, parts: list[bytes]) -> None:
        """Append the client's events for one part of the message."""

    @abstractmethod
    def _close(self, parts: list[bytes]) -> None:
        """Append the events that close what is open."""

    @abstractmethod
    def _finished(self, reason: str) -> bytes:
        """Return the last events of a complete response."""

    @abstractmethod
    def _failure(self, message: str) -> bytes:
        """Return the last events of a response that failed."""
