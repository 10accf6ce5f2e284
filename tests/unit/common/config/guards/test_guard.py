"""Settings of any guard: what is refused."""

import pytest
from pydantic import ValidationError

from toolbus_common.config import Guard


@pytest.mark.parametrize("late", ["results", "completions"])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_guard_cannot_ask_after_the_call_was_executed(late: str, mode: str) -> None:
    fields = {"kind": "secrets", "action": "ask", "mode": mode}
    with pytest.raises(ValidationError, match=f"'ask' cannot be used for {late}, because"):
        Guard.model_validate({**fields, "on": ["arguments", late]})


@pytest.mark.parametrize("phase", ["arguments", "prompts", "definitions"])
def test_a_guard_can_ask_before_the_call_and_about_definitions(phase: str) -> None:
    found = Guard.model_validate({"kind": "secrets", "action": "ask", "on": [phase]})
    assert found.action == "ask"
