"""W3C trace context: continue the caller's trace, or begin one."""

import random
import re

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NO_TRACE = "0" * 32


def continued(parent: str) -> str:
    """A traceparent for our own span: in the caller's trace if theirs is well-formed, else new.

    Source: https://www.w3.org/TR/trace-context/ section 3.2.
    """
    match = _PARENT.fullmatch(parent) if parent else None
    if match is None or match[1] == _NO_TRACE:
        return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-01"
    return f"00-{match[1]}-{random.getrandbits(64) or 1:016x}-01"


def child_of(parent: str) -> str:
    """A new span below one of our own, which is known to be well-formed."""
    return f"00-{parent[3:35]}-{random.getrandbits(64) or 1:016x}-01"


def trace_id(traceparent: str) -> str:
    """The 32 hex digits of a traceparent's trace."""
    return traceparent[3:35]
