"""The timeline of a call, from events in the order of their times."""

from typing import Any

from toolbus_ingress.console.timeline import timeline_of


def event(name: str, us: int, *, call: str = "c1", latency: int = 0) -> dict[str, Any]:
    """Return the columns of an event that the timeline reads."""
    return {"event": name, "us": us, "call_id": call, "latency_us": latency, "server": "docs",
            "tool": "read"}  # fmt: skip


def test_a_call_has_its_decision_its_way_and_its_time_at_the_server() -> None:
    found = timeline_of(
        "c1", [event("call.allowed", 1000), event("call.completed", 11_000, latency=8000)]
    )
    assert [(step.name, step.text) for step in found] == [
        ("call.allowed", "at 0.0 ms"),
        ("Stored, and sent to the executor", "2.0 ms"),
        ("docs__read", "8.0 ms"),
    ]
    assert [(step.left, step.width) for step in found[1:]] == [(0, 20), (20, 80)]


def test_calls_inside_a_call_are_bars_between_its_decision_and_its_end() -> None:
    found = timeline_of("c1", [
        event("call.allowed", 0),
        event("run.started", 100),
        event("call.allowed", 200, call="c2"),
        event("call.failed", 700, call="c2", latency=400),
        event("call.completed", 1000, latency=900),
    ])  # fmt: skip
    assert [(step.name, step.left) for step in found] == [
        ("call.allowed", 0),
        ("Stored, and sent to the executor", 0),
        ("run.started", 10),
        ("docs__read", 10),
        ("docs__read", 30),
    ]


def test_a_server_with_another_clock_never_begins_before_the_decision() -> None:
    found = timeline_of(
        "c1", [event("call.completed", 500, latency=9000), event("call.allowed", 1000)]
    )
    assert all(step.left >= 0 and step.left + step.width <= 100.01 for step in found)
    later = timeline_of(
        "c1", [event("call.allowed", 1000), event("call.completed", 1500, latency=9000)]
    )
    assert [step.text for step in later] == ["at 0.0 ms", "at 0.0 ms", "0.5 ms"]


def test_a_denied_call_and_a_call_without_events_have_no_durations() -> None:
    assert [step.text for step in timeline_of("c1", [event("call.denied", 5)])] == ["at 0.0 ms"]
    assert timeline_of("c1", []) == []
