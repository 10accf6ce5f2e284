"""Paths of the requests to each kind of provider."""

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from toolbus_common.config import Provider
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
)
from toolbus_common.errors import InvalidError
from toolbus_executor.providers.endpoints.methods import (
    CONVERSE,
    CONVERSE_COUNT,
    EMBED,
    GEMINI_COUNT,
    GENERATE,
    PREDICT,
    VERTEX_COUNT,
)

_FIXED = {
    CHAT: "/chat/completions",
    RESPONSES: "/responses",
    EMBEDDINGS: "/embeddings",
    MESSAGES: "/messages",
    COUNT_TOKENS: "/messages/count_tokens",
}
_OF_GOOGLE = {
    GENERATE: "generateContent",
    EMBED: "batchEmbedContents",
    PREDICT: "predict",
    GEMINI_COUNT: "countTokens",
    VERTEX_COUNT: "countTokens",
}
_OF_BEDROCK = {CONVERSE: "converse", CONVERSE_COUNT: "count-tokens"}
_STREAMED = {GENERATE: "streamGenerateContent", CONVERSE: "converse-stream"}
_WITHOUT_LIST = ("vertex", "bedrock")
_LISTS = {
    "anthropic": ("/models?limit=1000",),  # otherwise the first page
    "gemini": ("/models?pageSize=1000",),
    "vertex": tuple(f"/publishers/{each}/models?pageSize=100" for each in ("google", "anthropic")),
    # Other models can be called only by their inference profiles.
    "bedrock": (
        "/foundation-models?byInferenceType=ON_DEMAND&byOutputModality=TEXT",
        "/inference-profiles?type=SYSTEM_DEFINED&maxResults=1000",
    ),
}
_VERTEX_LISTS = "v1beta1"  # the version of the API that has lists
_TOKENS = {"gemini": "pageToken", "vertex": "pageToken", "bedrock": "nextToken"}
_SSE = "alt=sse"  # otherwise Google streams a JSON array

# Returns the path and the query of a request from its method, its model, and whether it streams.
PathOf = Callable[[str, str, bool], str]


def path_of(provider: Provider) -> PathOf:
    """Return the function that returns the path of each request."""
    target = urlsplit(provider.base_url)
    base, query = target.path.rstrip("/"), target.query

    def with_query(path: str, more: str = "") -> str:
        found = "&".join(part for part in (query, more) if part)
        return f"{base}{path}?{found}" if found else f"{base}{path}"

    fixed = {method: with_query(path) for method, path in _FIXED.items()}

    def of_fixed(method: str, _model: str, _streamed: bool) -> str:  # noqa: FBT001
        return fixed[method]

    def of_gemini(method: str, model: str, streamed: bool) -> str:  # noqa: FBT001
        return with_query(
            f"/models/{_google(method, _quoted(model), streamed=streamed)}", *_sse(streamed)
        )

    def of_vertex(method: str, model: str, streamed: bool) -> str:  # noqa: FBT001
        if method == COUNT_TOKENS:
            return with_query("/publishers/anthropic/models/count-tokens:rawPredict")
        if method == MESSAGES:
            verb = "streamRawPredict" if streamed else "rawPredict"
            return with_query(f"/publishers/anthropic/models/{_quoted(model)}:{verb}")
        name = _google(method, _quoted(model), streamed=streamed)
        return with_query(f"/publishers/google/models/{name}", *_sse(streamed))

    def of_bedrock(method: str, model: str, streamed: bool) -> str:  # noqa: FBT001
        verb = _STREAMED[method] if streamed else _OF_BEDROCK[method]
        return with_query(f"/model/{_quoted(model)}/{verb}")

    kinds: dict[str, PathOf] = {"gemini": of_gemini, "vertex": of_vertex, "bedrock": of_bedrock}
    return kinds.get(provider.kind, of_fixed)


def probe_path_of(provider: Provider) -> str:
    """Return the path of a probe. Vertex AI and Bedrock have no list of models at this address."""
    target = urlsplit(provider.base_url)
    path = target.path.rstrip("/")
    path = "/" if provider.kind in _WITHOUT_LIST else f"{path}/models"
    return f"{path}?{target.query}" if target.query else path


def list_urls_of(provider: Provider) -> tuple[str, ...]:
    """Return the URLs of the first pages of the lists of models.

    Amazon's own address of Bedrock's lists is not that of its requests.
    """
    target = urlsplit(provider.base_url)
    base = f"{target.scheme}://{target.netloc.rpartition('@')[2]}{target.path.rstrip('/')}"
    if provider.kind == "bedrock":
        base = base.replace("://bedrock-runtime.", "://bedrock.", 1)
    elif provider.kind == "vertex":
        version = base.partition("/projects/")[0]
        base = f"{version.removesuffix('/v1')}/{_VERTEX_LISTS}"
    paths = _LISTS.get(provider.kind, ("/models",))
    found = ((*urlsplit(path)[2:4],) for path in paths)
    return tuple(
        f"{base}{path}{'?' if target.query or more else ''}"
        f"{'&'.join(part for part in (target.query, more) if part)}"
        for path, more in found
    )


def next_page(kind: str, url: str, token: str) -> str:
    """Return the URL of the next page of a list; empty if there is none."""
    name = _TOKENS.get(kind)
    return f"{url}&{name}={quote(token, safe='')}" if name and token else ""


def _google(method: str, model: str, *, streamed: bool) -> str:
    return f"{model}:{_STREAMED[method] if streamed else _OF_GOOGLE[method]}"


def _sse(streamed: bool) -> tuple[str, ...]:  # noqa: FBT001
    return (_SSE,) if streamed else ()


def _quoted(model: str) -> str:
    """Return a model's name as one segment of a path. Raises `InvalidError` for `.` and `..`."""
    if model in (".", ".."):
        raise InvalidError(f"The model '{model}' does not exist; correct its name.", sent=False)
    return quote(model, safe="")
