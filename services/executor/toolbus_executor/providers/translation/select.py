"""Selection of the translation between the API of a client and the APIs of a provider."""

from collections.abc import Collection
from typing import Any

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    MODEL_METHODS,
    RESPONSES,
)
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_executor.providers.endpoints.methods import CONVERSE, GENERATE
from toolbus_executor.providers.request_body import limit_field
from toolbus_executor.providers.translation.base import StreamTranslation, Translation
from toolbus_executor.providers.translation.chat_to_messages.request import messages_request
from toolbus_executor.providers.translation.chat_to_messages.response import completion
from toolbus_executor.providers.translation.chat_to_messages.stream import ChatStream
from toolbus_executor.providers.translation.messages_to_chat import request as from_messages
from toolbus_executor.providers.translation.messages_to_chat.response import message
from toolbus_executor.providers.translation.messages_to_chat.stream import MessageStream
from toolbus_executor.providers.translation.own_apis import (
    COUNTS,
    EMBEDDERS,
    ChatToGemini,
    Embeddings,
    MessagesToConverse,
    TokenCount,
)
from toolbus_executor.providers.translation.responses_to_chat import request as from_responses
from toolbus_executor.providers.translation.responses_to_chat.response import repeated, response
from toolbus_executor.providers.translation.responses_to_chat.stream import ResponseStream
from toolbus_executor.providers.translation.sse import events
from toolbus_executor.providers.usage import Facts

_LIMIT = "max_completion_tokens"  # of a request that is translated twice
_CLIENTS_APIS = MODEL_METHODS


def translation_for(
    client_method: str, served_methods: Collection[str], max_output: int, *, limited: bool = True
) -> Translation | None:
    """Return a new translation for one request; None if the provider serves the client's API.

    The methods are those of `model_calls.MODEL_METHODS` and of `endpoints.methods`. `max_output` is
    the limit of output tokens of a request without a limit. Without `limited`, it applies only if
    the provider's API requires a limit. Raises `InvalidError` if no translation exists.
    """
    if client_method in served_methods:
        return None
    limit = limit_field(CHAT, served_methods)
    found: Translation | None
    if not _CLIENTS_APIS.isdisjoint(served_methods):
        found = _between_clients_apis(client_method, served_methods, limit, max_output)
    else:
        found = _to_own_api(client_method, served_methods, max_output, limited=limited)
    if found is not None:
        return found
    served = ", ".join(f"'{each}'" for each in sorted(served_methods)) or "nothing"
    raise InvalidError(
        f"The provider does not serve '{client_method}', and no translation exists: it serves "
        f"{served}. Use a model of another provider."
    )


def _between_clients_apis(
    client: str, served: Collection[str], limit: str, max_output: int
) -> Translation | None:
    if client == MESSAGES and CHAT in served:
        return MessagesToChat(limit)
    if client == CHAT and MESSAGES in served:
        return ChatToMessages(max_output)
    if client == RESPONSES and CHAT in served:
        return ResponsesToChat(limit)
    if client == RESPONSES and MESSAGES in served:
        return Composition(ResponsesToChat(limit, extended=True), ChatToMessages(max_output))
    return None


def _to_own_api(
    client: str, served: Collection[str], max_output: int, *, limited: bool
) -> Translation | None:
    """Return a composition over the API of a client that is closest to the provider's API."""
    if client == EMBEDDINGS:
        return next((Embeddings(each) for each in EMBEDDERS if each in served), None)
    if client == COUNT_TOKENS:
        counting = next((each for each in COUNTS if each in served), None)
        whole = _to_own_api(MESSAGES, served, max_output, limited=False)
        return None if counting is None or whole is None else TokenCount(counting, whole)
    inner: Translation
    if GENERATE in served:
        inner = ChatToGemini(max_output if limited else None)
        outer: Translation = MessagesToChat(_LIMIT, extended=True)
        of_messages: Translation = Composition(outer, inner)
    elif CONVERSE in served:
        of_messages = MessagesToConverse(is_priced=limited)
        inner = Composition(ChatToMessages(max_output), of_messages)
    else:
        return None
    of_responses = Composition(ResponsesToChat(_LIMIT, extended=True), inner)
    return {CHAT: inner, MESSAGES: of_messages, RESPONSES: of_responses}.get(client)


class MessagesToChat:
    """Translation of a client of the messages API to the chat completions API.

    `limit` and `extended` are those of `chat_request`.
    """

    provider_method = CHAT
    facts: Facts | None = None

    def __init__(self, limit: str, *, extended: bool = False) -> None:
        self._limit, self._extended = limit, extended

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        return from_messages.chat_request(body, self._limit, extended=self._extended)

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        return message(body)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return MessageStream()


class ChatToMessages:
    """Translation of a client of the chat completions API to the messages API."""

    provider_method = MESSAGES
    facts: Facts | None = None

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
    facts: Facts | None = None

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

    @property
    def facts(self) -> Facts | None:
        """The facts of the whole response, if the inner translation has read them."""
        return self._inner.facts

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
        self.facts = inner.facts

    @property
    def failure(self) -> ToolbusError | None:
        """The failure of the inner translation, which knows the provider's status, if it failed."""
        return self._inner.failure or self._outer.failure

    def feed(self, event: str, data: bytes) -> bytes:
        """Return the client's part of the stream for one event."""
        return self._through(self._inner.feed(event, data))

    def end(self) -> bytes:
        """Return the rest of the client's stream."""
        return self._through(self._inner.end()) + self._outer.end()

    def _through(self, part: bytes) -> bytes:
        return b"".join(self._outer.feed(name, data) for name, data in events(part))
