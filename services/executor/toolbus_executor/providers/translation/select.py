"""Selection of the translation between the API of a client and the APIs of a provider."""

from collections.abc import Collection
from typing import Any

from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError
from toolbus_executor.providers.request_body import limit_field
from toolbus_executor.providers.translation.base import StreamTranslation, Translation
from toolbus_executor.providers.translation.chat_to_messages.request import messages_request
from toolbus_executor.providers.translation.chat_to_messages.response import completion
from toolbus_executor.providers.translation.chat_to_messages.stream import ChatStream
from toolbus_executor.providers.translation.messages_to_chat import request as from_messages
from toolbus_executor.providers.translation.messages_to_chat.response import message
from toolbus_executor.providers.translation.messages_to_chat.stream import MessageStream
from toolbus_executor.providers.translation.responses_to_chat import request as from_responses
from toolbus_executor.providers.translation.responses_to_chat.response import repeated, response
from toolbus_executor.providers.translation.responses_to_chat.stream import ResponseStream
from toolbus_executor.providers.translation.sse import events


def translation_for(
    client_method: str, served_methods: Collection[str], max_output: int
) -> Translation | None:
    """Return a new translation for one request; None if the provider serves the client's API.

    The methods are those of `model_calls.MODEL_METHODS`. `max_output` is the limit of output tokens
    of a request without a limit, if the provider's API requires one. Raises `InvalidError` if no
    translation exists.
    """
    if client_method in served_methods:
        return None
    limit = limit_field(CHAT, served_methods)
    if client_method == MESSAGES and CHAT in served_methods:
        return MessagesToChat(limit)
    if client_method == CHAT and MESSAGES in served_methods:
        return ChatToMessages(max_output)
    if client_method == RESPONSES and CHAT in served_methods:
        return ResponsesToChat(limit)
    if client_method == RESPONSES and MESSAGES in served_methods:
        return Composition(ResponsesToChat(limit, extended=True), ChatToMessages(max_output))
    served = ", ".join(f"'{each}'" for each in sorted(served_methods)) or "nothing"
    raise InvalidError(
        f"The provider does not serve '{client_method}', and no translation exists: it serves "
        f"{served}. Use a model of another provider."
    )


class MessagesToChat:
    """Translation of a client of the messages API to the chat completions API.

    `limit` is the provider's field for the limit of output tokens.
    """

    provider_method = CHAT

    def __init__(self, limit: str) -> None:
        self._limit = limit

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        return from_messages.chat_request(body, self._limit)

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        return message(body)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return MessageStream()


class ChatToMessages:
    """Translation of a client of the chat completions API to the messages API."""

    provider_method = MESSAGES

    def __init__(self, max_output: int) -> None:
        self._max_output = max_output
        self._include_usage = False

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        made = messages_request(body, self._max_output)
        self._include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return made

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        return completion(body)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return ChatStream(include_usage=self._include_usage)


class ResponsesToChat:
    """Translation of a client of the responses API to the chat completions API.

    `limit` and `extended` are those of `chat_request`. The response repeats fields of the request.
    """

    provider_method = CHAT

    def __init__(self, limit: str, *, extended: bool = False) -> None:
        self._limit, self._extended = limit, extended
        self._repeated = repeated({})

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        made = from_responses.chat_request(body, self._limit, extended=self._extended)
        self._repeated = repeated(body)
        return made

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        return response(body, self._repeated)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return ResponseStream(self._repeated)


class Composition:
    """Two translations in a row: `outer` is next to the client, `inner` next to the provider."""

    def __init__(self, outer: Translation, inner: Translation) -> None:
        self._outer, self._inner = outer, inner
        self.provider_method = inner.provider_method

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        return self._inner.request(self._outer.request(body))

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        return self._outer.response(self._inner.response(body))

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return ComposedStream(self._outer.stream(), self._inner.stream())


class ComposedStream:
    """Two translations of a stream in a row, as in `Composition`."""

    def __init__(self, outer: StreamTranslation, inner: StreamTranslation) -> None:
        self._outer, self._inner = outer, inner

    def feed(self, event: str, data: bytes) -> bytes:
        """Return the client's part of the stream for one event."""
        return self._through(self._inner.feed(event, data))

    def end(self) -> bytes:
        """Return the rest of the client's stream."""
        return self._through(self._inner.end()) + self._outer.end()

    def _through(self, part: bytes) -> bytes:
        return b"".join(self._outer.feed(name, data) for name, data in events(part))
