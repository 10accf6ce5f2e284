"""The timeline of one call: what happened when, and for how long, from its recorded events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_ENDS = ("call.completed", "call.failed")
_SMALLEST = 0.6  # percent of the timeline that is visible as a bar


@dataclass(frozen=True, slots=True)
class Step:
    """One bar: its name, its duration as text, and its place in percent of the whole timeline."""

    name: str
    text: str
    left: float
    width: float


def timeline_of(call: str, events: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Return the steps of a call and of the calls inside it, by their start.

    The only duration in an event is `latency_us`, the time at the server. Between the decision and
    the start at the server, the intent is stored, and the call waits for its turn at the executor.
    The clocks of two machines may differ, so no step begins before the decision.
    """
    spans: list[tuple[int, int, str]] = []  # start and end in microseconds, name
    allowed: dict[str, int] = {}
    for event in events:
        at, own = int(event["us"]), event["call_id"]
        if event["event"] in _ENDS:
            started = max(at - int(event["latency_us"]), allowed.get(own, 0))
            if own in allowed and own == call:
                spans.append((allowed[own], started, "Stored, and sent to the executor"))
            spans.append((min(started, at), at, f"{event['server']}__{event['tool']}"))
        else:
            if event["event"] == "call.allowed":
                allowed[own] = at
                if own != call:
                    continue
            spans.append((at, at, str(event["event"])))
    spans.sort()
    first = min((start for start, _, _ in spans), default=0)
    whole = max((end for _, end, _ in spans), default=0) - first or 1
    return [_step(name, start - first, end - first, whole) for start, end, name in spans]


def _step(name: str, start: int, end: int, whole: int) -> Step:
    width = max(100 * (end - start) / whole, _SMALLEST)
    left = min(100 * start / whole, 100 - width)
    text = f"{(end - start) / 1000:,.1f} ms" if end > start else f"at {start / 1000:,.1f} ms"
    return Step(name, text, round(left, 2), round(width, 2))
