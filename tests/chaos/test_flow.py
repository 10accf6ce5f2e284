"""Policy is killed between each pair of steps of a call that reads: nothing read is forgotten.

`TOOLBUS_FLOW_KILLS=200` kills it so often; `make test` kills it once at each step.
"""

import os
from itertools import cycle, islice
from pathlib import Path

from harness.gateway.flow_crashes import STEPS, Case, FlowCrashes
from harness.programs.crashing_policy import READING

KILLS = int(os.environ.get("TOOLBUS_FLOW_KILLS", len(STEPS)))


def test_what_a_run_has_read_survives_every_kill_of_policy(tmp_path: Path) -> None:
    chosen = enumerate(islice(cycle(STEPS), KILLS))
    cases = [Case(step, number) for number, step in chosen]
    with FlowCrashes(tmp_path, cases).running() as crashes:
        for case in cases:
            at_once, later = crashes.run(case)
            assert later == "flow_refused", case
            # Before the state is written, the call is not dispatched: nothing was read.
            assert at_once == (case.key if case.step == READING else "flow_refused"), case
