"""Policy killed at every step of a call, with and without its outcome: calls that ran pay once.

`make chaos-ledger` does the same 200 times.
"""

from pathlib import Path

import pytest

from harness.gateway.policy_crashes import (
    FUSED_POINTS,
    SEPARATE_POINTS,
    Case,
    Charge,
    PolicyCrashes,
)


@pytest.mark.parametrize("layout", ["separate processes", "one process"])
def test_a_call_that_ran_is_charged_once_wherever_policy_is_killed(
    tmp_path: Path, layout: str
) -> None:
    fused = layout == "one process"
    cases = [Case(*point) for point in (FUSED_POINTS if fused else SEPARATE_POINTS)]
    with PolicyCrashes(tmp_path, cases, fused=fused).running() as crashes:
        for case in cases:
            crashes.crash(case)
        assert crashes.charges() == {case: Charge.expected(case) for case in cases}
