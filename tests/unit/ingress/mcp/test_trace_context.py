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


def test_the_messages_trace_applies_and_the_requests_is_linked() -> None:
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": "m=1"}, head(traceparent=OTHERS))
    assert trace.traceparent[3:35] == trace.run == THEIRS[3:35]
    assert (trace.parent, trace.state, trace.carrier) == (THEIRS[36:52], "m=1", OTHERS)


def test_the_requests_trace_applies_to_a_message_without_one() -> None:
    trace = trace_context_of({}, head(traceparent=THEIRS, tracestate="h=1", baggage="user=x"))
    assert trace.traceparent[3:35] == THEIRS[3:35]
    assert (trace.parent, trace.state) == (THEIRS[36:52], "h=1")
    assert trace.baggage == "", "the baggage is for the gateway, not for the server"
    assert (trace.run, trace.carrier) == ("", "")


def test_tracestate_belongs_to_its_own_traceparent() -> None:
    assert trace_context_of({"traceparent": THEIRS}, head(tracestate="h=1")).state == ""
    assert trace_context_of({"tracestate": "m=1"}, {}).state == ""
    assert trace_context_of({"tracestate": "m=1", "traceparent": "nonsense"}, {}).state == ""


@pytest.mark.parametrize("odd", ["a\nb", "ü", "", "x" * (LONGEST_BAGGAGE + 1), 7, {"a": "b"}, None])
def test_malformed_values_are_not_forwarded(odd: Any) -> None:
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": odd, "baggage": odd}, {})
    assert (trace.state, trace.baggage) == ("", "")


def test_tracestate_has_a_smaller_limit_than_baggage() -> None:
    long = "x" * (LONGEST_STATE + 1)
    trace = trace_context_of({"traceparent": THEIRS, "tracestate": long, "baggage": long}, {})
    assert (trace.state, trace.baggage) == ("", long)


@pytest.mark.parametrize("in_meta", ["", 7, None])
def test_a_malformed_trace_in_the_message_falls_back_to_the_request(in_meta: Any) -> None:
    trace = trace_context_of(
        {"traceparent": in_meta, "tracestate": "m=1"}, head(traceparent=THEIRS)
    )
    assert (trace.parent, trace.state, trace.run) == (THEIRS[36:52], "", "")


@given(st.none() | st.integers() | st.text(), st.text())
def test_any_input_results_in_a_valid_trace(in_meta: Any, header: str) -> None:
    trace = trace_context_of({"traceparent": in_meta}, {b"traceparent": header.encode()})
    assert is_traceparent(trace.traceparent)
