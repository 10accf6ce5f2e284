"""Requests that must reach the server before an action counts as ok."""

from harness.waits import until_blocking
from matrix.drivers.report import LONG_SECONDS
from matrix.upstreams import Seen, Upstream

_TOOLS = {
    "call": "test_echo",
    "progress": "test_tool_with_progress",
    "elicitation": "test_elicitation",
    "sampling": "test_sampling",
    "task": "slow_compute",
}
_CARRIES_NONCE = {
    "call": "test_echo",
    "elicitation": "test_elicitation",
    "sampling": "test_sampling",
    "task": "slow_compute",
    "prompt": "test_prompt_with_arguments",
}
_SETTLE_SECONDS = LONG_SECONDS  # after that no request of this action interferes with the next one


def missing(action: str, nonce: str, before: Seen, upstream: Upstream) -> str:
    """Return the missing requests of an action; empty if none is missing."""
    seen = upstream.seen()
    tool = _TOOLS.get(action)
    if tool and not seen.more("tools", tool, before):
        return f"the server never saw {tool}"
    carrier = _CARRIES_NONCE.get(action)
    if carrier and not seen.mentions(nonce, carrier):
        return f"the server never saw what {carrier} was given"
    if action == "cancellation" and not _cancelled(before, upstream):
        return "the server received no cancellation"
    return ""


def _cancelled(before: Seen, upstream: Upstream) -> bool:
    def cancelled() -> bool:
        return upstream.seen().more("cancelled", "test_sleep", before)

    try:
        until_blocking(cancelled, "the cancellation", _SETTLE_SECONDS)
    except AssertionError:
        return False
    return True
