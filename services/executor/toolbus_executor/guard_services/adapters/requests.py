"""The request to a generic service: what is checked, and about which call (no I/O)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from toolbus_executor.guard_services.adapters.base import Asked


def request_about(asked: Asked, texts: Sequence[str], send: str) -> dict[str, Any]:
    """Return the body of a request. `send` is `texts`, `content` or `both`."""
    body: dict[str, Any] = {
        "phase": asked.phase,
        "server": asked.call.server,
        "tool": asked.call.tool,
        "customer": asked.call.customer,
    }
    if send != "content":
        body["texts"] = list(texts)
    if send != "texts":
        body["content"] = msgspec.Raw(asked.content or b"null")
    return body
