"""W3C trace context: continue the caller's trace, or begin one, and carry on what comes with it."""

import random
import re
from collections.abc import Callable
from typing import Any

LONGEST_STATE = 512  # characters; W3C asks for as many at least
LONGEST_BAGGAGE = 8192

# Of later versions what this one knows is read, and what follows it is not.
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:(?<!00-.{52})-.*)?"
)
_VISIBLE = re.compile(r"[ -~]+")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

# Whether to record a trace, by its id and its caller's word, which is None where there is none.
Sampler = Callable[[str, bool | None], bool]


def as_asked(_trace: str, asked: bool | None) -> bool:  # noqa: FBT001 - the one thing it is told
    """Who records nothing passes on what the caller wants, and keeps nobody from recording."""
    return asked is not False


def entered(parent: str, sampler: Sampler = as_asked) -> tuple[str, str]:
    """A traceparent for our own span and its parent's id: the caller's trace if theirs is sound.

    Source: https://www.w3.org/TR/trace-context/ section 3.2.
    """
    match = _PARENT.fullmatch(parent) if parent else None
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        trace, above, asked = f"{random.getrandbits(128) or 1:032x}", "", None
    else:
        trace, above, asked = match[1], match[2], int(match[3], 16) % 2 == 1
    return _traceparent(trace, "01" if sampler(trace, asked) else "00"), above


def continued(parent: str, sampler: Sampler = as_asked) -> str:
    """A traceparent for our own span: in the caller's trace if theirs is well-formed, else new."""
    return entered(parent, sampler)[0]


def child_of(parent: str) -> str:
    """A new span below one of our own, which is known to be well-formed."""
    return _traceparent(parent[3:35], parent[53:])


def trace_id(traceparent: str) -> str:
    """The 32 hex digits of a traceparent's trace."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """The 16 hex digits of a traceparent's span."""
    return traceparent[36:52]


def is_sampled(traceparent: str) -> bool:
    """Whether a traceparent of ours says that its trace is recorded."""
    return traceparent.endswith("1")


def is_traceparent(text: str) -> bool:
    """Whether it is one, of our own making or another's."""
    return _PARENT.fullmatch(text) is not None


def carried(said: Any, most: int) -> str:
    """What a caller says beside its traceparent, as it may go on; what is odd does not."""
    fits = isinstance(said, str) and len(said) <= most and _VISIBLE.fullmatch(said)
    return said if fits else ""


def _traceparent(trace: str, flags: str) -> str:
    return f"00-{trace}-{random.getrandbits(64) or 1:016x}-{flags}"
