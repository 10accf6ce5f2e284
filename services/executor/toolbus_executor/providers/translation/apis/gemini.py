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
    """Return the token counts. `candidatesTokenCount` does not include thoughts."""
    if reported is None:
        return None

    def count(name: str) -> int:
        value = reported.get(f"{name}TokenCount")
        return value if isinstance(value, int) else 0

    thoughts = count("thoughts")
    return reported_usage(
        count("prompt") + count("toolUsePrompt"),
        count("cachedContent"),
        0,
        count("candidates") + thoughts,
        thoughts,
    )


def signed(place: str, signature: str) -> str:
    """Return the signature of a thinking block that carries a thought signature."""
    return f"{SIGNATURE}{place}:{signature}"


def signatures_in(blocks: list[dict[str, Any]]) -> dict[str, str]:
    """Return the thought signatures that thinking blocks carry, by their place."""
    texts = [text for block in blocks if isinstance(text := block.get("signature"), str)]
    found = (_SIGNATURE.fullmatch(text) for text in texts)
    return {each.group(1): each.group(2) for each in found if each is not None}
