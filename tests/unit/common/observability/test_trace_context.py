"""A well-formed trace is continued; otherwise a new one starts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.observability.trace_context import continued, trace_id

FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def test_the_callers_trace_continues_with_a_new_span() -> None:
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ours = continued(theirs)
    assert trace_id(ours) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert ours != theirs


@pytest.mark.parametrize(
    "parent",
    [
        "", "nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    ],
)  # fmt: skip
def test_a_malformed_parent_starts_a_new_trace(parent: str) -> None:
    assert FORM.fullmatch(continued(parent))
    assert trace_id(continued(parent)) != trace_id(continued(parent))


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_a_later_version_is_read_as_far_as_known(flags: str) -> None:
    theirs = f"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"
    for parent in (theirs, f"{theirs}-what-the-future-brings"):
        ours = continued(parent)
        assert trace_id(ours) == theirs[3:35]
        assert ours.endswith("-00" if flags == "00" else "-01")


@given(parent=st.text())
def test_an_outgoing_traceparent_is_well_formed_for_any_input(parent: str) -> None:
    assert FORM.fullmatch(continued(parent))
