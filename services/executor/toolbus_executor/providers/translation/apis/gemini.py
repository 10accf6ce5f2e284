"""The API of Gemini: what translations read of its responses.

Source: the discovery document of generativelanguage.googleapis.com, v1beta. Vertex AI has the same
types. A thought signature belongs to one part of the response, and must be returned in it. Clients
return it as the signature of a thinking block: `gemini:<index of the tool call>:<signature>`, or
`gemini:text:<signature>`.
"""

import re
from typing import Any

from msgspec import Struct

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.translation.decoded_facts import reported_usage
from toolbus_executor.providers.usage import count_of

SIGNATURE = "gemini:"
OF_TEXT = "text"
_SIGNATURE = re.compile(r"gemini:(text|\d{1,4}):([A-Za-z0-9+/_=-]+)")
# Models that refuse tool calls without a signature accept this value for calls of other models.
# Source: "Thought signatures" in the documentation of the Gemini API.
NO_SIGNATURE = "skip_thought_signature_validator"

FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"),
        ),
        "content_filter",
    ),
}
_PROMPTS = ("prompt", "toolUsePrompt")
# Google prices the frames of videos and the pages of documents as images.
_AUDIO, _IMAGES = frozenset({"AUDIO"}), frozenset({"IMAGE", "VIDEO", "DOCUMENT"})
# Reasons of a response that the model has not completed.
FAILURES = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"),
    }
)


class FunctionCall(Struct):
    """A tool call."""

    name: str = ""
    args: dict[str, Any] | None = None
    id: str | None = None


class Part(Struct, rename="camel"):
    """A part of the content. `thought` marks a summary of the reasoning."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None


class Content(Struct):
    """The content of a response."""

    parts: list[Part] | None = None


class Candidate(Struct, rename="camel"):
    """A candidate of a response."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None


class PromptFeedback(Struct, rename="camel"):
    """The reason why a prompt was blocked."""

    block_reason: str | None = None


class Response(Struct, rename="camel"):
    """A response, or an event of a stream."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: dict[str, Any] | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


def usage_of(reported: dict[str, Any] | None) -> Usage | None:
    """Return the token counts. `candidatesTokenCount` does not include thoughts.

    The details of the prompt include those of the cache, which have the price of cached tokens.
    """
    if reported is None:
        return None
    thoughts = count_of(reported.get("thoughtsTokenCount"))

    def fresh(kinds: frozenset[str]) -> int:
        parts = [_detail(reported, f"{name}TokensDetails", kinds) for name in _PROMPTS]
        return sum(parts) - _detail(reported, "cacheTokensDetails", kinds)

    return reported_usage(
        Usage(
            input=sum(count_of(reported.get(f"{name}TokenCount")) for name in _PROMPTS),
            cached=count_of(reported.get("cachedContentTokenCount")),
            output=count_of(reported.get("candidatesTokenCount")) + thoughts,
            reasoning=thoughts,
            audio_input=fresh(_AUDIO),
            image_input=fresh(_IMAGES),
            audio_output=_detail(reported, "candidatesTokensDetails", _AUDIO),
        )
    )


def _detail(reported: dict[str, Any], name: str, kinds: frozenset[str]) -> int:
    """Return the tokens of these kinds in a list of counts by kind."""
    details = reported.get(name)
    if not isinstance(details, list):
        return 0
    return sum(
        count_of(each.get("tokenCount"))
        for each in details
        if isinstance(each, dict) and str(each.get("modality")) in kinds
    )


def signed(place: str, signature: str) -> str:
    """Return the signature of a thinking block that carries a thought signature."""
    return f"{SIGNATURE}{place}:{signature}"


def signatures_in(blocks: list[dict[str, Any]]) -> dict[str, str]:
    """Return the thought signatures that thinking blocks carry, by their place."""
    texts = [text for block in blocks if isinstance(text := block.get("signature"), str)]
    found = (_SIGNATURE.fullmatch(text) for text in texts)
    return {each.group(1): each.group(2) for each in found if each is not None}
