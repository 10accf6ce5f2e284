"""Return lists in pages, sorted by name, each small enough for a message (no I/O)."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

LARGEST_PAGE = 2 * 1024 * 1024  # bytes; a larger item is a page of its own


def page(
    entries: Mapping[str, Any],
    show: Callable[[str], Any],
    after: str,
    limit: int,
    search: str = "",
) -> dict[str, Any]:
    """Return one page of the entries whose names sort after `after`, with at most `limit` items.

    Only names that contain `search` are returned, in upper or lower case.

    `next` is the last name of the page if more entries follow, else None.
    """
    names = sorted(name for name in entries if name > after and search.lower() in name.lower())
    items: list[msgspec.Raw] = []
    size = 0
    for name in names[:limit]:
        item = msgspec.json.encode(show(name))
        size += len(item)
        if items and size > LARGEST_PAGE:
            break
        items.append(msgspec.Raw(item))
    more = len(items) < len(names)
    return {"items": items, "next": names[len(items) - 1] if more and items else None}
