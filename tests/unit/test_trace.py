"""A well-formed trace is continued, anything else begins a new one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.trace import continued, trace_id

FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def test_the_callers_trace_goes_on_with_a_span_of_our_own() -> None:
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ours = continued(theirs)
    assert trace_id(ours) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert ours != theirs


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"])
def test_a_malformed_parent_begins_a_new_trace(parent: str) -> None:
    assert FORM.fullmatch(continued(parent))
    assert trace_id(continued(parent)) != trace_id(continued(parent))


@given(parent=st.text())
def test_whatever_is_sent_what_goes_on_is_well_formed(parent: str) -> None:
    assert FORM.fullmatch(continued(parent))
