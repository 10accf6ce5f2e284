"""W3C trace context: continuation of the caller's trace, tracestate and baggage."""

import random
import re
from collections.abc import Callable
from typing import Any

LONGEST_STATE = 512  # characters; the minimum that W3C requires
LONGEST_BAGGAGE = 8192

# In later versions of the format, the known fields are read and all further fields are ignored.
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:(?<!00-.{52})-.*)?"
)
_VISIBLE = re.compile(r"[ -~]+")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

# A function that decides whether to record a trace. Its arguments are the trace id and the caller's
# sampled flag (None without a caller).
Sampler = Callable[[str, bool | None], bool]


def parent_based(_trace: str, parent_sampled: bool | None) -> bool:  # noqa: FBT001 - one flag
    """Return true unless the caller's trace is not sampled.

    Default without a configured sampler.
    """
    return parent_sampled is not False


def entered(parent: str, sampler: Sampler = parent_based) -> tuple[str, str]:
    """Return the traceparent of a new span, and the id of its parent span.

    The span is in the caller's trace if `parent` is valid; otherwise it starts a new trace. Source:
    https://www.w3.org/TR/trace-context/ section 3.2.
    """
    match = _PARENT.fullmatch(parent) if parent else None
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        trace, above, parent_sampled = f"{random.getrandbits(128) or 1:032x}", "", None
    else:
        trace, above, parent_sampled = match[1], match[2], int(match[3], 16) % 2 == 1
    return _traceparent(trace, "01" if sampler(trace, parent_sampled) else "00"), above


def continued(parent: str, sampler: Sampler = parent_based) -> str:
    """Return the traceparent of a new span, in the caller's trace if `parent` is valid."""
    return entered(parent, sampler)[0]


def child_of(parent: str) -> str:
    """Return the traceparent of a new span below `parent`, which Toolbus created and is valid."""
    return _traceparent(parent[3:35], parent[53:])


def trace_id(traceparent: str) -> str:
    """Return the trace id of a traceparent, 32 hex digits."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """Return the span id of a traceparent, 16 hex digits."""
    return traceparent[36:52]


def is_sampled(traceparent: str) -> bool:
    """Return whether a traceparent that Toolbus created belongs to a recorded trace."""
    return traceparent.endswith("1")


def is_traceparent(text: str) -> bool:
    """Return whether the text is a valid traceparent."""
    return _PARENT.fullmatch(text) is not None


def carried(value: Any, maximum: int) -> str:
    """Return a tracestate or baggage header to forward; empty if it is too long or malformed."""
    fits = isinstance(value, str) and len(value) <= maximum and _VISIBLE.fullmatch(value)
    return value if fits else ""


def _traceparent(trace: str, flags: str) -> str:
    return f"00-{trace}-{random.getrandbits(64) or 1:016x}-{flags}"
