"""Translation of requests for embeddings to the API of Gemini, and of their responses."""

import base64
import struct
from typing import Any

from msgspec import Struct

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.translation.body import (
    GEMINI_API,
    check_fields,
    read,
    read_response,
    unsupported,
)

MAX_TEXTS = 2048


class Request(Struct):
    """A request of the embeddings API of OpenAI."""

    input: str | list[str | int | list[int]]
    model: str = ""
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """The texts. Raises `InvalidError` for tokens, and for too many texts."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if len(texts) > MAX_TEXTS:
            raise unsupported(f"more than {MAX_TEXTS} texts", GEMINI_API, "Send fewer at once")
        found = [text for text in texts if isinstance(text, str)]
        if len(found) != len(texts):
            raise unsupported("tokens in 'input'", GEMINI_API, "Send texts")
        return found


class _Vector(Struct):
    values: list[float]


class _Batch(Struct):
    embeddings: list[_Vector]


class _Prediction(Struct):
    embeddings: "_Counted"


class _Statistics(Struct):
    token_count: float | None = None


class _Counted(Struct):
    values: list[float]
    statistics: _Statistics | None = None


class _Predictions(Struct):
    predictions: list[_Prediction]


def read_embeddings(body: dict[str, Any]) -> Request:
    """Return the client's request. Raises `InvalidError`."""
    check_fields(body, frozenset(Request.__struct_fields__), GEMINI_API)
    return read(body, Request)


def batch_request(request: Request) -> dict[str, Any]:
    """Return the request of the Gemini API."""
    more = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    model = f"models/{request.model}"
    return {
        "requests": [
            {"model": model, "content": {"parts": [{"text": text}]}, **more}
            for text in request.texts
        ]
    }


def predict_request(request: Request) -> dict[str, Any]:
    """Return the request of Vertex AI."""
    made: dict[str, Any] = {"instances": [{"content": text} for text in request.texts]}
    if request.dimensions is not None:
        made["parameters"] = {"outputDimensionality": request.dimensions}
    return made


def batch_vectors(body: Any) -> tuple[list[list[float]], Usage | None]:
    """Return the vectors of a response of the Gemini API, which reports no usage."""
    return [each.values for each in read_response(body, _Batch).embeddings], None


def predicted_vectors(body: Any) -> tuple[list[list[float]], Usage | None]:
    """Return the vectors of a response of Vertex AI, and its usage."""
    found = [each.embeddings for each in read_response(body, _Predictions).predictions]
    counts = [each.statistics.token_count if each.statistics else None for each in found]
    usage = None
    if found and all(count is not None and count >= 0 for count in counts):
        usage = Usage(input=int(min(sum(count or 0 for count in counts), 1e7)))
    return [each.values for each in found], usage


def embeddings_body(
    vectors: list[list[float]], model: str, usage: Usage, encoding: str | None
) -> dict[str, Any]:
    """Return the response for the client."""

    def form(vector: list[float]) -> Any:
        if encoding != "base64":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": form(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": usage.input, "total_tokens": usage.input},
    }
