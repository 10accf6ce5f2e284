"""The trace context of a request: the message's `_meta` precedes the HTTP headers."""

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


def head(**header: str) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in header.items()}


def test_what_the_message_says_counts_and_its_request_is_linked() -> None:
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": "m=1"}, head(traceparent=OTHERS))
    assert trace.traceparent[3:35] == trace.run == THEIRS[3:35]
    assert (trace.parent, trace.state, trace.carrier) == (THEIRS[36:52], "m=1", OTHERS)


def test_a_request_speaks_for_a_message_that_says_nothing_but_is_no_run() -> None:
    trace = trace_context_of({}, head(traceparent=THEIRS, tracestate="h=1", baggage="user=x"))
    assert trace.traceparent[3:35] == THEIRS[3:35]
    assert (trace.parent, trace.state) == (THEIRS[36:52], "h=1")
    assert trace.baggage == "", "it was said to us, not to the server"
    assert (trace.run, trace.carrier) == ("", "")


def test_state_belongs_to_the_traceparent_it_came_with() -> None:
    assert trace_context_of({"traceparent": THEIRS}, head(tracestate="h=1")).state == ""
    assert trace_context_of({"tracestate": "m=1"}, {}).state == ""
    assert trace_context_of({"tracestate": "m=1", "traceparent": "nonsense"}, {}).state == ""


@pytest.mark.parametrize("odd", ["a\nb", "ü", "", "x" * (LONGEST_BAGGAGE + 1), 7, {"a": "b"}, None])
def test_what_is_odd_goes_no_further(odd: Any) -> None:
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": odd, "baggage": odd}, {})
    assert (trace.state, trace.baggage) == ("", "")


def test_a_state_is_shorter_than_a_baggage_may_be() -> None:
    long = "x" * (LONGEST_STATE + 1)
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": long, "baggage": long}, {})
    assert (trace.state, trace.baggage) == ("", long)


@pytest.mark.parametrize("in_meta", ["", 7, None])
def test_a_message_that_says_nothing_sound_leaves_it_to_its_request(in_meta: Any) -> None:
    trace = trace_context_of(
        {"traceparent": in_meta, "tracestate": "m=1"}, head(traceparent=THEIRS)
    )
    assert (trace.parent, trace.state, trace.run) == (THEIRS[36:52], "", "")


@given(st.none() | st.integers() | st.text(), st.text())
def test_any_input_gives_a_valid_trace(in_meta: Any, header: str) -> None:
    trace = trace_context_of({"traceparent": in_meta}, {b"traceparent": header.encode()})
    assert is_traceparent(trace.traceparent)
