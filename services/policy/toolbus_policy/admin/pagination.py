"""Return lists in pages, sorted by name, each small enough for a message (no I/O)."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from toolbus_common.contracts import AdminRequest

LARGEST_PAGE = 2 * 1024 * 1024  # bytes; a larger item is a page of its own


def page(
    entries: Mapping[str, Any], show: Callable[[str], Any], request: AdminRequest
) -> dict[str, Any]:
    """Return the page of the entries that a request selects, sorted by name.

    Only names that contain `search` are returned, in upper or lower case. `next` is the last name
    of the page if more entries follow, else None.
    """
    search = request.search.lower()
    names = sorted(name for name in entries if name > request.after and search in name.lower())
    items: list[msgspec.Raw] = []
    size = 0
    for name in names[: request.limit]:
        item = msgspec.json.encode(show(name))
        size += len(item)
        if items and size > LARGEST_PAGE:
            break
        items.append(msgspec.Raw(item))
    more = len(items) < len(names)
    return {"items": items, "next": names[len(items) - 1] if more and items else None}
