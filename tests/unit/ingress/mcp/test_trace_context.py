"""Where a request stands in its caller's trace, whatever it says of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.observability.trace_context import (
    LONGEST_BAGGAGE,
    LONGEST_STATE,
    is_traceparent,
)
from toolbus_ingress.mcp.tracing import trace_context_of

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHERS = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def head(**told: str) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in told.items()}


def test_what_the_message_says_counts_and_its_request_is_linked() -> None:
    trail = trace_context_of({"traceparent": THEIRS, "tracestate": "m=1"}, head(traceparent=OTHERS))
    assert trail.traceparent[3:35] == trail.run == THEIRS[3:35]
    assert (trail.parent, trail.state, trail.carrier) == (THEIRS[36:52], "m=1", OTHERS)


def test_a_request_speaks_for_a_message_that_says_nothing_but_is_no_run() -> None:
    trail = trace_context_of({}, head(traceparent=THEIRS, tracestate="h=1", baggage="user=x"))
    assert trail.traceparent[3:35] == THEIRS[3:35]
    assert (trail.parent, trail.state) == (THEIRS[36:52], "h=1")
    assert trail.baggage == "", "it was said to us, not to the server"
    assert (trail.run, trail.carrier) == ("", "")


def test_state_belongs_to_the_traceparent_it_came_with() -> None:
    assert trace_context_of({"traceparent": THEIRS}, head(tracestate="h=1")).state == ""
    assert trace_context_of({"tracestate": "m=1"}, {}).state == ""
    assert trace_context_of({"tracestate": "m=1", "traceparent": "nonsense"}, {}).state == ""


@pytest.mark.parametrize("odd", ["a\nb", "ü", "", "x" * (LONGEST_BAGGAGE + 1), 7, {"a": "b"}, None])
def test_what_is_odd_goes_no_further(odd: Any) -> None:
    trail = trace_context_of({"traceparent": THEIRS, "tracestate": odd, "baggage": odd}, {})
    assert (trail.state, trail.baggage) == ("", "")


def test_a_state_is_shorter_than_a_baggage_may_be() -> None:
    long = "x" * (LONGEST_STATE + 1)
    trail = trace_context_of({"traceparent": THEIRS, "tracestate": long, "baggage": long}, {})
    assert (trail.state, trail.baggage) == ("", long)


@pytest.mark.parametrize("said", ["", 7, None])
def test_a_message_that_says_nothing_sound_leaves_it_to_its_request(said: Any) -> None:
    trail = trace_context_of({"traceparent": said, "tracestate": "m=1"}, head(traceparent=THEIRS))
    assert (trail.parent, trail.state, trail.run) == (THEIRS[36:52], "", "")


@given(st.none() | st.integers() | st.text(), st.text())
def test_whatever_is_said_there_is_a_sound_trace(said: Any, told: str) -> None:
    trail = trace_context_of({"traceparent": said}, {b"traceparent": told.encode()})
    assert is_traceparent(trail.traceparent)
