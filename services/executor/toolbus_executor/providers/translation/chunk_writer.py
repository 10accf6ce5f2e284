"""Writer of the chunks of a chat completions stream, for streams of other APIs."""

from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.translation.apis import chat
from toolbus_executor.providers.translation.body import encode
from toolbus_executor.providers.translation.sse import DONE, unnamed


class ChunkWriter:
    """Writer of chunks of one choice. `include_usage` means that the client requested the usage."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: dict[str, Any] = {}
        self._prefix = b""  # of every chunk with a delta

    @property
    def started(self) -> bool:
        """Whether the first chunk was written."""
        return bool(self._prefix)

    def start(self, response_id: str | None, model: str | None) -> bytes:
        """Return the first chunk."""
        self._head = {**chat.head(response_id, model), "object": "chat.completion.chunk"}
        prefix = encode({**self._head, "choices": [{"index": 0}]})
        self._prefix = b"data: " + prefix[:-3] + b',"delta":'
        return self.chunk({"role": "assistant", "content": ""})

    def chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        """Return a chunk. `reason` is the finish reason in the last chunk with a choice."""
        end = b"null}]}\n\n" if reason is None else b'"' + reason.encode() + b'"}]}\n\n'
        return self._prefix + encode(delta) + b',"finish_reason":' + end

    def end(self, usage: Usage) -> bytes:
        """Return the last chunks."""
        if not self._include_usage:
            return DONE
        return unnamed({**self._head, "choices": [], "usage": chat.usage_body(usage)}) + DONE

    def failed(self, message: str) -> bytes:
        """Return the last chunks of a response that failed."""
        error = {"message": message, "type": "server_error", "param": None, "code": None}
        return unnamed({"error": error}) + DONE
