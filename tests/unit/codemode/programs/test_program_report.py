"""What a program of a run has used, and the limits that its run sets."""

from types import SimpleNamespace
from typing import Any, cast

from harness.builders.calls import admitted_call
from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.nested_calls import NestedCalls
from toolbus_codemode.programs.program_report import ProgramReport, report_of
from toolbus_codemode.sandbox.program import ToolCall
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.contracts import CallRequested, CallResult
from toolbus_common.mcp.code_mode_options import RunTerms


def test_a_report_is_read_from_the_result_of_codemode() -> None:
    report = ProgramReport(7, {"shop__say": 2})
    assert report_of(report.added({"content": []})) == report
    assert report_of({"content": [{"type": "text", "text": "toolbus/program"}]}) is None


async def test_a_program_makes_no_more_calls_of_a_tool_than_its_run_allows() -> None:
    made: list[str] = []

    async def request(call: CallRequested) -> CallResult:
        made.append(call.tool)
        return CallResult(b'{"content":[]}')

    calls = SimpleNamespace(
        new_call_id=lambda: "a2", address=lambda call: call, request_detached=request
    )
    service: Any = SimpleNamespace(calls=calls)
    directory = ConfigView()
    outer = admitted_call(call_id="a1")
    nested = NestedCalls(service, directory, cast("Any", None), outer, RunBudget())
    nested.of_run = RunTerms(3, {"shop__say": 1})
    outcomes = [await nested.make(ToolCall("shop", "say", {})) for _ in range(3)]
    assert [each.failure and each.failure.code for each in outcomes] == [
        None, None, "too_many_calls",
    ]  # fmt: skip
    assert (made, nested.by_tool) == (["say", "say"], {"shop__say": 2})
