"""Identity of a model request for the cache of responses (no I/O).

Two requests are equal if they have the same provider, model, API and callers, and the same members,
byte by byte. `model` is not compared, because an alias has another name than its target.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw, Struct

from toolbus_common.config import Provider, SemanticCache
from toolbus_common.contracts import CallAdmitted
from toolbus_common.contracts.model_calls import (
    CHAT,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    ModelCall,
)
from toolbus_executor.providers.cache.text_identity import wording_of

CACHEABLE = frozenset({CHAT, RESPONSES, MESSAGES, EMBEDDINGS})
_NOT_COMPARED = frozenset({"model", "stream"})
# Members that change state or data at the provider, or refer to data that can change there.
_STATEFUL = frozenset(
    {
        "previous_response_id",
        "conversation",
        "container",
        "prompt",
        "background",
        "mcp_servers",
        "web_search_options",
        "cachedContent",
        "cached_content",
    }
)
# Types of tools that the client runs. A provider's own tools read data that changes.
_CLIENT_TOOLS = frozenset({None, "function", "custom"})
_TURNS = {CHAT: "messages", MESSAGES: "messages", RESPONSES: "input"}
_EMPTY = frozenset({b"null", b"[]", b"", b"false"})
# Content that a comparison of texts would ignore.
_NO_TEXT = re.compile(
    rb'"type"\s*+:\s*+"(?:input_)?(?:image|image_url|audio|video|file|document|search_result)"'
)


class _Tool(Struct):
    type: str | None = None


_members = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode
_any = msgspec.json.Decoder().decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class SimilarText(Struct, frozen=True):
    """The text of the last user message, and the digest of its wording and of the other members."""

    text: str
    context: bytes


class RequestKey(Struct, frozen=True):
    """The identity of a request: its digest, and its text if similar requests are compared."""

    digest: bytes
    similar: SimilarText | None = None


def fingerprint_of(provider: Provider) -> str:
    """Return a digest of the provider's settings that affect its responses."""
    headers = _framed(
        part.encode() for header in sorted(provider.headers.items()) for part in header
    )
    parts = (
        provider.kind,
        provider.base_url,
        provider.region,
        ",".join(provider.served_apis),
        str(provider.max_output),
        sha256(headers).hexdigest(),  # they can contain secrets
    )
    return "\n".join(parts)


def request_key(
    call: CallAdmitted,
    model_call: ModelCall,
    scope: str,
    fingerprint: str,
    semantic: SemanticCache | None,
) -> RequestKey | None:
    """Return the identity of a request; None if its response must not be cached."""
    if call.method not in CACHEABLE or model_call.choices != 1:
        return None
    try:
        members = _members(call.arguments)
        tools = _tools(members.get("tools", b"null")) or ()
    except _UNREADABLE:
        return None
    if any(each.type not in _CLIENT_TOOLS for each in tools):
        return None
    if any(bytes(members.get(name, b"")) not in _EMPTY for name in _STATEFUL):
        return None
    kind = "stream" if model_call.stream else "whole"
    head = (scope, call.server, call.tool, call.method, kind, model_call.beta, fingerprint)
    compared = {name: bytes(raw) for name, raw in members.items() if name not in _NOT_COMPARED}
    similar = None
    if semantic is not None:
        similar = _similar(head, compared, call.method, model_call, semantic)
    return RequestKey(_digest(b"equal", head, compared), similar)


def _similar(
    head: tuple[str, ...],
    members: dict[str, bytes],
    method: str,
    model_call: ModelCall,
    semantic: SemanticCache,
) -> SimilarText | None:
    """Return the text to compare; None if only an equal request can share the response."""
    turns = _TURNS.get(method, "")
    if turns not in members or (model_call.tools and not semantic.tools):
        return None
    if method == RESPONSES and members.get("store") != b"false":
        return None  # the id of a stored response gives access to its conversation
    try:
        if _any(members.get("temperature", b"0")) > semantic.max_temperature:
            return None
        raw = members[turns]
        if raw[:1] == b'"':
            text, earlier = _any(raw), []
        else:
            *earlier, last = _items(raw)
            text = _text_of(_any(last))
    except (*_UNREADABLE, TypeError):
        return None
    wording = wording_of(text) if isinstance(text, str) else None
    if wording is None or any(map(_NO_TEXT.search, map(bytes, earlier))):
        return None
    rest = {**members, turns: _framed((wording.encode(), *map(bytes, earlier)))}
    return SimilarText(text, _digest(b"similar", (*head, semantic.embeddings), rest))


def _text_of(message: Any) -> str:
    """Return the text of a user message; empty if it has other parts, such as a tool result."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return ""
    known = message.keys() <= {"role", "content", "type"}
    content = message.get("content")
    if not known or message.get("type", "message") != "message":
        return ""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("text", "input_text"):
            return ""
        text = part.get("text")
        if part.keys() - {"type", "text", "cache_control"} or not isinstance(text, str):
            return ""
        texts.append(text)
    return "\n".join(texts)


def _digest(purpose: bytes, head: tuple[str, ...], members: dict[str, bytes]) -> bytes:
    parts = [purpose, *(each.encode() for each in head)]
    for name in sorted(members):
        parts += (name.encode(), members[name])
    return sha256(_framed(parts)).digest()


def _framed(parts: Iterable[bytes]) -> bytes:
    """Join the parts, each with its length, so that different parts never give equal bytes."""
    return b"".join(b"%d:%b" % (len(each), each) for each in parts)
