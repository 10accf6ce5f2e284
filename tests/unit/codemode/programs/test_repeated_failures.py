"""Failures that a caller repeats get another answer."""

from harness.builders.calls import admitted_call
from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.programs.repeated_failures import (
    LONGEST_DOCUMENTATION,
    MAX_REMEMBERED,
    SECONDS,
    RepeatedFailures,
)
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.contracts import CallAdmitted
from toolbus_common.mcp.builtin_server import BUILT_IN, EXECUTE

SCHEMA = {"properties": {"a": {"type": "integer", "description": "First."}}, "required": ["a"]}
TOOLS = {"sums": {"add": {"description": "Add. " + "x" * 9_000, "inputSchema": SCHEMA}}}
NAMESPACE = ToolNamespace(TOOLS, EffectiveGrants((("*",),)))
NOTHING = ToolNamespace(TOOLS, EffectiveGrants(()).narrowed([()]))
FAILURE = "wrong_argument (line 1): sums.add needs 'a'."
CODE = b'{"code": "sums.add()"}'


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def call(session: str = "s", code: bytes = CODE, key_digest: str = "k") -> CallAdmitted:
    return admitted_call(
        server=BUILT_IN, tool=EXECUTE, session=session, arguments=code, key_digest=key_digest
    )


def test_the_third_identical_failure_has_the_documentation_of_the_nearest_tool() -> None:
    failures = RepeatedFailures()
    answers = [failures.answer(call(), FAILURE, NAMESPACE) for _ in range(3)]
    assert answers[:2] == [FAILURE, FAILURE]
    assert answers[2].startswith(f"{FAILURE}\n\nThis call failed 3 times in the same way.")
    assert "sums.add(a: int)" in answers[2]
    assert len(answers[2]) < LONGEST_DOCUMENTATION + 300


def test_the_third_identical_answer_of_a_reading_tool_names_the_next_step() -> None:
    repeated, found = RepeatedFailures(), "sums/add.pyi\nadd(a: int)"
    answers = [repeated.reading(call(), found, NAMESPACE) for _ in range(3)]
    assert answers[:2] == [found, found]
    assert answers[2].startswith(f"{found}\n\nYou have received this answer 3 times")
    assert answers[2].endswith("such as: result = sums.add(a=1)")
    assert repeated.reading(call(), "other", NAMESPACE) == "other"
    assert [repeated.reading(call(), "no tool", NAMESPACE) for _ in range(3)] == ["no tool"] * 3


def test_another_session_key_call_or_failure_is_counted_apart() -> None:
    failures = RepeatedFailures()
    for _ in range(2):
        failures.answer(call(), FAILURE, NAMESPACE)
    others = [call("t"), call(key_digest="l"), call(code=b'{"code": "sums.add(1)"}')]
    for other in others:
        assert failures.answer(other, FAILURE, NAMESPACE) == FAILURE
    assert failures.answer(call(), "other", NAMESPACE) == "other"


def test_a_failure_is_forgotten_some_time_after_its_last_repetition() -> None:
    clock = Clock()
    failures = RepeatedFailures(clock)
    for _ in range(2):
        failures.answer(call(), FAILURE, NAMESPACE)
    clock.now = SECONDS + 1
    assert failures.answer(call(), FAILURE, NAMESPACE) == FAILURE


def test_the_number_of_remembered_failures_is_limited() -> None:
    failures = RepeatedFailures()
    for number in range(MAX_REMEMBERED + 100):
        failures.answer(call(), str(number), NAMESPACE)
    assert len(failures._counts) == MAX_REMEMBERED


def test_a_tool_outside_the_grants_is_not_documented() -> None:
    failures = RepeatedFailures()
    answers = [failures.answer(call(), FAILURE, NOTHING) for _ in range(3)]
    assert "sums.add(a" not in answers[2]
    assert answers[2].endswith("find the tool with searchTools, then call it.")
