"""What a caller is told instead of a large value: how it begins, what it is, how to read on."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_common.mcp.result_uris import USUAL_LENGTH, Handle
from toolbus_executor.results.large.spill import MARK

_MARKS = re.compile(MARK.encode() + rb"[0-9a-f]{32}")
_STRING_MEMBERS = ("text", "data", "blob")
_LONGEST_MEDIA = 100
_NO_TEXT = "(no text)"


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept value, by the mark that stands for it."""

    name: str
    handle: Handle
    size: int
    media: str
    beginning: bytes
    ends: float

    def words(self) -> str:
        """What a model has to know of it."""
        text = self.media.startswith("text/") or self.media.endswith(("json", "xml"))
        begins = self.beginning.decode("utf-8", "ignore") if text else _NO_TEXT
        until = datetime.fromtimestamp(self.ends, UTC).strftime("%H:%M UTC")
        return (
            f"[{self.size} bytes of {self.media}, too large to tell at once. "
            f"Read on with resources/read of {self.handle.uri()}?offset=0&length={USUAL_LENGTH}, "
            f"a piece at a time; kept until {until} for this key alone. It begins:]\n{begins}"
        )

    def link(self) -> dict[str, Any]:
        """The content block that leads to it."""
        return {
            "type": "resource_link",
            "uri": self.handle.uri(),
            "name": f"result of {self.handle.tool}",
            "mimeType": self.media,
            "size": self.size,
        }


def marks_in(raw: bytes) -> list[str]:
    """The marks a result holds, each once."""
    return [each.decode() for each in dict.fromkeys(_MARKS.findall(raw))]


def said_media(raw: bytes) -> dict[str, str]:
    """What the server says its values are, by the marks that stand for them."""
    result: dict[str, Any] = msgspec.json.decode(raw)
    found: dict[str, str] = {}
    for holder in _holders(result.get("content")) + _holders(result.get("contents")):
        media = holder.get("mimeType")
        if isinstance(media, str) and 0 < len(media) <= _LONGEST_MEDIA and media.isprintable():
            found |= {_name(holder.get(member)): media.lower() for member in _STRING_MEMBERS}
    return found


def _holders(blocks: Any) -> list[dict[str, Any]]:
    """Blocks, and the resources in them."""
    told = blocks if isinstance(blocks, list) else []
    both = [each for block in told for each in (block, _member(block, "resource"))]
    return [each for each in both if isinstance(each, dict)]


def retold(raw: bytes, kept: dict[str, Kept]) -> bytes:
    """The result with words and links where marks stood."""
    if not kept:
        return raw
    result: dict[str, Any] = msgspec.json.decode(raw)
    content, contents = result.get("content"), result.get("contents")
    if isinstance(content, list):
        result["content"] = [told for each in content for told in _block(each, kept)]
    if isinstance(contents, list):
        result["contents"] = [_content(each, kept) for each in contents]
    whole = kept.get(_name(result.get("structuredContent")))
    if whole is not None:
        # Clients refuse a success without the structure a schema promises, and read an error.
        del result["structuredContent"]
        result["isError"] = True
        result.setdefault("content", []).extend(_told(whole))
    return msgspec.json.encode(result)


def _told(kept: Kept) -> list[dict[str, Any]]:
    return [{"type": "text", "text": kept.words()}, kept.link()]


def _block(block: Any, kept: dict[str, Kept]) -> list[Any]:
    found = _found(block, kept) or _found(_member(block, "resource"), kept)
    return _told(found) if found is not None else [block]


def _content(content: Any, kept: dict[str, Kept]) -> Any:
    """One of a read resource: words instead of what it holds, under its own URI."""
    found = _found(content, kept)
    if found is None:
        return content
    bare = {name: told for name, told in content.items() if name not in _STRING_MEMBERS}
    return {**bare, "mimeType": "text/plain", "text": found.words()}


def _found(holder: Any, kept: dict[str, Kept]) -> Kept | None:
    names = (_name(_member(holder, member)) for member in _STRING_MEMBERS)
    return next((kept[name] for name in names if name in kept), None)


def _member(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _name(told: Any) -> str:
    return told if isinstance(told, str) else ""
