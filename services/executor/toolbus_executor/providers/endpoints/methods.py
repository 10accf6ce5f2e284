"""Methods of providers' own APIs, beside those of `model_calls.MODEL_METHODS`.

No client uses them: requests of the clients' APIs are translated to them.
"""

from toolbus_common.config import Provider
from toolbus_common.contracts.model_calls import COUNT_TOKENS, MESSAGES

GENERATE = "models/generate_content"  # of Gemini
EMBED = "models/batch_embed_contents"  # of the Gemini API
PREDICT = "models/predict"  # embeddings of Vertex AI
GEMINI_COUNT = "models/gemini_count_tokens"
VERTEX_COUNT = "models/vertex_count_tokens"
CONVERSE = "models/converse"  # of Amazon Bedrock
CONVERSE_COUNT = "models/converse_count_tokens"

_OF_KIND = {
    "gemini": frozenset({GENERATE, EMBED, GEMINI_COUNT}),
    "vertex": frozenset({GENERATE, PREDICT, VERTEX_COUNT}),
    "bedrock": frozenset({CONVERSE, CONVERSE_COUNT}),
}
_OF_CLAUDE = frozenset({MESSAGES, COUNT_TOKENS})


def is_claude_on_vertex(provider: Provider, model: str) -> bool:
    """Return whether Vertex AI serves this model with Anthropic's API."""
    return provider.kind == "vertex" and model.startswith("claude")


def served_methods(provider: Provider, model: str) -> frozenset[str]:
    """Return the methods that a provider serves without translation."""
    if is_claude_on_vertex(provider, model):
        return _OF_CLAUDE
    if (found := _OF_KIND.get(provider.kind)) is not None:
        return found
    served = {f"models/{api}" for api in provider.served_apis}
    return frozenset(served | {COUNT_TOKENS} if MESSAGES in served else served)
