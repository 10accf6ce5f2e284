"""Preview of a large value for the caller: its beginning, media type, size and result URI."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_common.mcp.result_uris import USUAL_LENGTH, Handle
from toolbus_executor.results.large.spill import PLACEHOLDER

_PLACEHOLDERS = re.compile(PLACEHOLDER.encode() + rb"[0-9a-f]{32}")
_STRING_MEMBERS = ("text", "data", "blob")
_LONGEST_MEDIA = 100
_NO_TEXT = "(no text)"


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A stored value. `name` is the name in its placeholder."""

    name: str
    handle: Handle
    size: int
    media: str
    beginning: bytes
    expires: float

    def text(self) -> str:
        """Return the text of the preview, which the model reads."""
        is_text = self.media.startswith("text/") or self.media.endswith(("json", "xml"))
        begins = self.beginning.decode("utf-8", "ignore") if is_text else _NO_TEXT
        until = datetime.fromtimestamp(self.expires, UTC).strftime("%H:%M UTC")
        return (
            f"[{self.size} bytes of {self.media}, too large to return at once. "
            f"Read it with resources/read of {self.handle.uri()}?offset=0&length={USUAL_LENGTH}, "
            f"one part at a time; stored until {until} for this key only. It begins:]\n{begins}"
        )

    def link(self) -> dict[str, Any]:
        """Return the content block that links to the stored value."""
        return {
            "type": "resource_link",
            "uri": self.handle.uri(),
            "name": f"result of {self.handle.tool}",
            "mimeType": self.media,
            "size": self.size,
        }


def placeholders_in(raw: bytes) -> list[str]:
    """Return the names of the placeholders in a result, without duplicates."""
    return [each.decode() for each in dict.fromkeys(_PLACEHOLDERS.findall(raw))]


def declared_media(raw: bytes) -> dict[str, str]:
    """Return the media types that the server declares for its values, by placeholder name."""
    result: dict[str, Any] = msgspec.json.decode(raw)
    found: dict[str, str] = {}
    for holder in _holders(result.get("content")) + _holders(result.get("contents")):
        media = holder.get("mimeType")
        if isinstance(media, str) and 0 < len(media) <= _LONGEST_MEDIA and media.isprintable():
            found |= {_name(holder.get(member)): media.lower() for member in _STRING_MEMBERS}
    return found


def _holders(blocks: Any) -> list[dict[str, Any]]:
    """Return the blocks of a result, and the resources in these blocks."""
    each_part = blocks if isinstance(blocks, list) else []
    both = [each for block in each_part for each in (block, _member(block, "resource"))]
    return [each for each in both if isinstance(each, dict)]


def with_previews(raw: bytes, stored: dict[str, StoredValue]) -> bytes:
    """Return the result with a preview and a link in place of each placeholder."""
    if not stored:
        return raw
    result: dict[str, Any] = msgspec.json.decode(raw)
    content, contents = result.get("content"), result.get("contents")
    if isinstance(content, list):
        result["content"] = [each_part for each in content for each_part in _block(each, stored)]
    if isinstance(contents, list):
        result["contents"] = [_content(each, stored) for each in contents]
    whole = stored.get(_name(result.get("structuredContent")))
    if whole is not None:
        # Clients reject a successful result whose structured content does not match the schema.
        # They accept an error result without structured content.
        del result["structuredContent"]
        result["isError"] = True
        result.setdefault("content", []).extend(_preview_blocks(whole))
    return msgspec.json.encode(result)


def _preview_blocks(stored: StoredValue) -> list[dict[str, Any]]:
    return [{"type": "text", "text": stored.text()}, stored.link()]


def _block(block: Any, stored: dict[str, StoredValue]) -> list[Any]:
    found = _stored_in(block, stored) or _stored_in(_member(block, "resource"), stored)
    return _preview_blocks(found) if found is not None else [block]


def _content(content: Any, stored: dict[str, StoredValue]) -> Any:
    """Return a content of `resources/read` with the preview in place of the stored text."""
    found = _stored_in(content, stored)
    if found is None:
        return content
    bare = {name: each_part for name, each_part in content.items() if name not in _STRING_MEMBERS}
    return {**bare, "mimeType": "text/plain", "text": found.text()}


def _stored_in(holder: Any, stored: dict[str, StoredValue]) -> StoredValue | None:
    names = (_name(_member(holder, member)) for member in _STRING_MEMBERS)
    return next((stored[name] for name in names if name in stored), None)


def _member(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _name(each_part: Any) -> str:
    return each_part if isinstance(each_part, str) else ""
