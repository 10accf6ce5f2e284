"""Events of runs and nested calls: no content, and failures with advice."""

from hashlib import sha256

import pytest

from harness.builders.calls import admitted_call
from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.error_hints import failure_of
from toolbus_codemode.programs.limits import Cap
from toolbus_codemode.programs.nested_calls import Tally, _outcome
from toolbus_codemode.programs.run_events import LONGEST_PROGRAM, Run
from toolbus_codemode.sandbox.program import Program, ProgramError, ProgramResult
from toolbus_common.access.principal import principal_of
from toolbus_common.config import Configuration, Key, Team
from toolbus_common.contracts import (
    Event,
    InputRequired,
    RunCompleted,
    RunFailed,
    RunStarted,
    TaskCreated,
)
from toolbus_common.errors import (
    OutcomeUnknownError,
    RunBudgetExceededError,
    UnknownToolError,
    UpstreamTimeoutError,
)

TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
CALL = admitted_call(
    call_id="c1", server="toolbus", tool="executeToolCode", deadline=9e9, traceparent=TRACE
)
SECRET = "what-a-tool-answered"


def run(content: str, events: list[Event], source: str = "result = 1\n") -> Run:
    key = Key.model_validate({"team": "support", "content": content})
    declared = Configuration(keys={"bot": key}, teams={"support": Team()})
    principal = principal_of("bot", key, declared)
    return Run(CALL, principal, Program(source), RunBudget(spent=5), Tally(3, 1, 1), events.append)


@pytest.mark.parametrize("content", ["full", "digest"])
def test_a_programs_source_is_published_only_if_content_is_recorded(content: str) -> None:
    messages: list[Event] = []
    run(content, messages).started()
    (event,) = messages
    assert isinstance(event, RunStarted)
    assert event.program == ("result = 1\n" if content == "full" else "")
    assert (event.lines, event.engine, event.team, event.key) == (1, "starlark", "support", "bot")
    assert event.program_digest == sha256(b"result = 1\n").hexdigest()


def test_a_program_too_long_to_run_is_not_published_whole() -> None:
    messages: list[Event] = []
    run("full", messages, "x" * 10 * LONGEST_PROGRAM).started()
    assert isinstance(messages[0], RunStarted)
    assert len(messages[0].program) == LONGEST_PROGRAM


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("tool_failed", f"tool_error: {SECRET}", "tool_error"),
        ("runtime", f"ValueError: {SECRET}", ""),
        (
            "too_many_calls",
            "A program can make at most 3 calls.",
            "A program can make at most 3 calls.",
        ),
    ],
)
def test_a_failures_reason_holds_no_unrecorded_content(
    name: str, message: str, expected: str
) -> None:
    ended = ProgramResult(error=ProgramError(name, message, 7))  # type: ignore[arg-type]
    messages: list[Event] = []
    for content in ("digest", "full"):
        run(content, messages).ended(ended, 0, 0)
    without, whole = messages
    assert isinstance(without, RunFailed)
    assert isinstance(whole, RunFailed)
    assert (without.code, without.at_line, without.reason) == (name, 7, expected)
    assert SECRET not in without.model_dump_json()
    assert whole.reason == message


def test_a_run_event_reports_what_it_used() -> None:
    messages: list[Event] = []
    run("digest", messages).ended(ProgramResult(1, seconds=0.5, cpu=0.25), 17, 1)
    (event,) = messages
    assert isinstance(event, RunCompleted)
    assert (event.calls, event.denied, event.failed, event.cost) == (3, 1, 1, 5)
    assert (event.latency_us, event.cpu_us, event.output_bytes, event.stored) == (
        500_000,
        250_000,
        17,
        1,
    )


def test_an_aborted_run_reports_the_cause() -> None:
    messages: list[Event] = []
    run("digest", messages).cancelled("cancelled", "Its caller left.")
    assert isinstance(messages[0], RunFailed)
    assert (messages[0].code, messages[0].reason) == ("cancelled", "Its caller left.")


def test_a_missing_tool_is_an_error_with_advice() -> None:
    result = failure_of(UnknownToolError.named("one__say"))
    assert result.code == "unknown_tool"
    assert result.message.startswith("Unknown tool: one__say")
    assert "listToolFiles" in result.message


def test_an_exhausted_budget_names_the_level_that_set_it() -> None:
    error = RunBudgetExceededError("Run budget exceeded: it costs $0.02.")
    result = failure_of(error, Cap(0.05, "team:support")).message
    assert "team:support limits the calls of one program to $0.05." in result


@pytest.mark.parametrize("error", [UpstreamTimeoutError("Late."), OutcomeUnknownError("Lost.")])
def test_an_unknown_outcome_advises_to_check_first(
    error: UpstreamTimeoutError | OutcomeUnknownError,
) -> None:
    assert "before repeating it" in failure_of(error).message


@pytest.mark.parametrize("outcome", [InputRequired(b"{}"), TaskCreated(b"{}")])
def test_a_tool_that_needs_the_client_is_to_be_called_outside_a_program(
    outcome: InputRequired | TaskCreated,
) -> None:
    failure = _outcome(outcome).failure
    assert failure is not None
    assert failure.code == "input_required"
    assert "Call the tool directly" in failure.message
