"""Limits on how many gateways a call and a name may pass."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.services.call_runner import admitted
from toolbus_common.errors import LoopDetectedError
from toolbus_executor.upstreams.gateway_chaining import HOPS, MAX_HOPS, near, onward


def hops(extra: str) -> Any:
    return json.loads(extra)["_meta"][HOPS]


def test_each_gateway_adds_a_hop_and_keeps_other_members() -> None:
    call = onward(admitted("t", extra='{"task":{"ttl":5},"_meta":{"x/y":1}}'))
    assert json.loads(call.extra) == {"task": {"ttl": 5}, "_meta": {"x/y": 1, HOPS: 1}}
    assert hops(onward(call).extra) == 2
    assert hops(onward(admitted("t")).extra) == 1


def test_a_call_at_the_hop_limit_is_rejected_and_not_sent() -> None:
    call = admitted("t")
    for _ in range(MAX_HOPS):
        call = onward(call)
    with pytest.raises(LoopDetectedError) as caught:
        onward(call)
    assert caught.value.data["sent"] is False


@given(
    claimed=st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text()
    | st.integers(max_value=0)
)
def test_an_invalid_hop_count_does_not_extend_the_limit(claimed: Any) -> None:
    extra = json.dumps({"_meta": {HOPS: claimed}})
    assert hops(onward(admitted("t", extra=extra)).extra) in (1, 2)


def test_names_beyond_the_limit_are_skipped_with_a_reason() -> None:
    names = ["a__x", "a__" * MAX_HOPS + "x", "a__" * (MAX_HOPS + 1) + "x"]
    page = {"tools": [{"name": name} for name in names] + ["odd"], "ttlMs": 5}
    kept, far = near("tools/list", page)
    assert kept == {"tools": [{"name": names[0]}, {"name": names[1]}, "odd"], "ttlMs": 5}
    assert list(far) == [names[2]]
    assert near("resources/list", page) == (page, {})
