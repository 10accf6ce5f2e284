"""The request to a generic service: what is checked, and about which call (no I/O)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from toolbus_executor.guard_services.adapters.base import CheckedContent


def request_about(checked: CheckedContent, texts: Sequence[str], send: str) -> dict[str, Any]:
    """Return the body of a request. `send` is `texts`, `content` or `both`."""
    body: dict[str, Any] = {
        "phase": checked.phase,
        "server": checked.call.server,
        "tool": checked.call.tool,
        "customer": checked.call.customer,
    }
    if send != "content":
        body["texts"] = list(texts)
    if send != "texts":
        body["content"] = msgspec.Raw(checked.content or b"null")
    return body
