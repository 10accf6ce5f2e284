"""How far a call and a name may come from gateway to gateway."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import admitted
from toolbus_common.errors import LoopDetectedError
from toolbus_executor.upstreams.gateway_chaining import HOPS, MOST_HOPS, near, onward


def hops(extra: str) -> Any:
    return json.loads(extra)["_meta"][HOPS]


def test_each_gateway_adds_a_step_and_keeps_what_came_along() -> None:
    call = onward(admitted("t", extra='{"task":{"ttl":5},"_meta":{"x/y":1}}'))
    assert json.loads(call.extra) == {"task": {"ttl": 5}, "_meta": {"x/y": 1, HOPS: 1}}
    assert hops(onward(call).extra) == 2
    assert hops(onward(admitted("t")).extra) == 1


def test_a_call_that_went_far_enough_goes_no_further_and_was_not_sent() -> None:
    call = admitted("t")
    for _ in range(MOST_HOPS):
        call = onward(call)
    with pytest.raises(LoopDetectedError) as caught:
        onward(call)
    assert caught.value.data["sent"] is False


@given(
    told=st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text()
    | st.integers(max_value=0)
)
def test_nobody_gains_steps_by_what_it_says(told: Any) -> None:
    extra = json.dumps({"_meta": {HOPS: told}})
    assert hops(onward(admitted("t", extra=extra)).extra) in (1, 2)


def test_names_from_too_far_away_are_left_out_with_a_reason() -> None:
    names = ["a__x", "a__" * MOST_HOPS + "x", "a__" * (MOST_HOPS + 1) + "x"]
    page = {"tools": [{"name": name} for name in names] + ["odd"], "ttlMs": 5}
    kept, far = near("tools/list", page)
    assert kept == {"tools": [{"name": names[0]}, {"name": names[1]}, "odd"], "ttlMs": 5}
    assert list(far) == [names[2]]
    assert near("resources/list", page) == (page, {})
