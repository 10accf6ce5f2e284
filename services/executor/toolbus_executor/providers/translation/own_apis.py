"""Translations to the own APIs of Gemini and Amazon Bedrock."""

from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.endpoints.methods import (
    CONVERSE,
    CONVERSE_COUNT,
    EMBED,
    GEMINI_COUNT,
    GENERATE,
    PREDICT,
    VERTEX_COUNT,
)
from toolbus_executor.providers.translation.base import StreamTranslation, Translation
from toolbus_executor.providers.translation.body import CONVERSE_API, unsupported
from toolbus_executor.providers.translation.chat_to_gemini import embeddings
from toolbus_executor.providers.translation.chat_to_gemini import response as from_gemini
from toolbus_executor.providers.translation.chat_to_gemini.request import gemini_request
from toolbus_executor.providers.translation.chat_to_gemini.stream import GeminiStream
from toolbus_executor.providers.translation.decoded_facts import text_estimate
from toolbus_executor.providers.translation.messages_to_converse import response as from_converse
from toolbus_executor.providers.translation.messages_to_converse.conversation import has_long_cache
from toolbus_executor.providers.translation.messages_to_converse.request import converse_request
from toolbus_executor.providers.translation.messages_to_converse.stream import ConverseStream
from toolbus_executor.providers.usage import Facts

# Of a request for a count: the fields that describe the prompt.
_COUNTED = frozenset({"contents", "systemInstruction", "tools"})
_COUNTED_BY_CONVERSE = frozenset({"messages", "system", "toolConfig"})


class ChatToGemini:
    """Translation of a client of the chat completions API to the API of Gemini.

    `max_output` is the limit of output tokens of a request without a limit; None for no limit.
    """

    provider_method = GENERATE

    def __init__(self, max_output: int | None) -> None:
        self.facts: Facts | None = None
        self._max_output = max_output
        self._include_usage = False

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        made = gemini_request(body, self._max_output)
        self._include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return made

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        self.facts = from_gemini.facts_of(body)
        return from_gemini.completion(body)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return GeminiStream(include_usage=self._include_usage)


class MessagesToConverse:
    """Translation of a client of the messages API to the Converse API.

    `is_priced` means that the tokens are charged. In this case, caches of one hour are refused:
    they cost more than others, and Bedrock does not report which writes are for an hour.
    """

    provider_method = CONVERSE

    def __init__(self, *, is_priced: bool = True) -> None:
        self._is_priced = is_priced
        self.facts: Facts | None = None
        self._model = ""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        made = converse_request(body)
        if self._is_priced and has_long_cache(made):
            raise unsupported(
                "the cache ttl '1h' of a priced model", CONVERSE_API, "Use the ttl '5m'"
            )
        self._model = str(body.get("model", ""))
        return made

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        self.facts = from_converse.facts_of(body)
        return from_converse.message(body, self._model)

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        return ConverseStream(self._model)


class _WithoutStream:
    """A translation of an API that does not stream."""

    def __init__(self, provider_method: str) -> None:
        self.provider_method = provider_method
        self.facts: Facts | None = None

    def stream(self) -> StreamTranslation:
        """Raise `UpstreamInvalidError`: these APIs have no streams."""
        raise UpstreamInvalidError(
            "The provider sent a stream, which was not requested. Check the provider's 'url'."
        )


class Embeddings(_WithoutStream):
    """Translation of requests for embeddings to the Gemini API (`EMBED`) or Vertex AI."""

    def __init__(self, provider_method: str) -> None:
        super().__init__(provider_method)
        self._request = embeddings.Request("")

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        request = self._request = embeddings.read_embeddings(body)
        if self.provider_method == EMBED:
            return embeddings.batch_request(request)
        return embeddings.predict_request(request)

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client. A provider that reports no usage gets an estimate."""
        read = (
            embeddings.predicted_vectors
            if self.provider_method == PREDICT
            else embeddings.batch_vectors
        )
        vectors, usage = read(body)
        request = self._request
        size = sum(len(text.encode()) for text in request.texts)
        usage = usage or text_estimate(size, 0)
        self.facts = Facts(usage)
        form = request.encoding_format
        return embeddings.embeddings_body(vectors, request.model, usage, form)


class TokenCount(_WithoutStream):
    """Translation of a request for a count of tokens; `whole` translates the counted request."""

    def __init__(self, provider_method: str, whole: Translation) -> None:
        super().__init__(provider_method)
        self._whole = whole

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider."""
        if not isinstance(body, dict):
            return self._whole.request(body)  # raises the error
        made = self._whole.request({"max_tokens": 1, **body})
        if self.provider_method == CONVERSE_COUNT:
            counted = {name: made[name] for name in made.keys() & _COUNTED_BY_CONVERSE}
            return {"input": {"converse": counted}}
        counted = {name: made[name] for name in made.keys() & _COUNTED}
        if self.provider_method == VERTEX_COUNT:
            return counted
        counted["model"] = f"models/{body.get('model', '')}"
        return {"generateContentRequest": counted}

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client."""
        name = "inputTokens" if self.provider_method == CONVERSE_COUNT else "totalTokens"
        count = body.get(name) if isinstance(body, dict) else None
        if not isinstance(count, int) or count < 0:
            raise UpstreamInvalidError(
                f"The provider's response has no valid number '{name}'. Check the provider's "
                "'apis'."
            )
        self.facts = Facts(Usage())
        return {"input_tokens": count}


COUNTS = {GEMINI_COUNT: GENERATE, VERTEX_COUNT: GENERATE, CONVERSE_COUNT: CONVERSE}
EMBEDDERS = (EMBED, PREDICT)
