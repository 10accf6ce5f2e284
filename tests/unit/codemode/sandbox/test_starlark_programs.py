"""Starlark programs in the sandbox, with real processes and filters."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.programs.sandbox_tools import AMPLE, TOOLS, Tools
from toolbus_codemode.sandbox.program import (
    Function,
    Limits,
    Namespace,
    Program,
    ProgramResult,
    ToolCall,
    ToolOutcome,
    identifier,
)
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    started = Sandbox(SandboxSettings(engines=("starlark",), spares=1))
    await started.start()
    yield started
    await started.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ended(sandbox: Sandbox, source: str, limits: Limits = AMPLE) -> ProgramResult:
    return await sandbox.run(Program(source, tools=TOOLS, limits=limits), Tools().call)


@pytest.mark.parametrize(
    "source",
    [
        "parallel([call(github.meet, number=n) for n in range(2)])",
        "parallel([lambda n=n: github.meet(number=n) for n in range(2)])",
        "parallel([call(github.meet, 0), lambda: github.meet(1)])",
        "parallel([lambda n=n: github.meet(github.get_issue(n)['number']) for n in range(2)])",
        "[p[0] for p in parallel([lambda n=n: parallel([lambda: github.meet(n)]) for n in [0,1]])]",
    ],
)
async def test_calls_of_parallel_branches_run_concurrently(sandbox: Sandbox, source: str) -> None:
    end = await ended(sandbox, source)
    assert (end.error, end.value) == (None, [{"number": 0}, {"number": 1}])


async def test_code_repeated_for_parallel_calls_and_prints_once(sandbox: Sandbox) -> None:
    tools = Tools()
    source = (
        "print('begins')\ngithub.get_issue(1)\n"
        "parallel([lambda n=n: github.get_issue(n) for n in range(3)])\nprint('ends')"
    )
    end = await sandbox.run(Program(source, tools=TOOLS, limits=AMPLE), tools.call)
    assert (end.error, end.prints, end.calls) == (None, "begins\nends\n", 4)
    assert [request.arguments["number"] for request in tools.calls] == [1, 0, 1, 2]


async def test_a_call_reaches_the_service_by_the_servers_own_names(sandbox: Sandbox) -> None:
    tools = Tools()
    await sandbox.run(Program("github.get_issue(3)", tools=TOOLS, limits=AMPLE), tools.call)
    assert tools.calls == [ToolCall("git-hub", "get-issue", {"number": 3})]


async def test_an_exception_of_the_service_is_hidden_from_the_program(sandbox: Sandbox) -> None:
    end = await ended(sandbox, "r = try_call(github.broken)\nprint(r)\n[r.error.code, str(r)]")
    assert end.error is None
    assert end.value[0] == "internal"
    assert "a-secret" not in repr(end)


async def test_a_program_waiting_for_a_tool_is_ended_and_its_call_cancelled(
    sandbox: Sandbox,
) -> None:
    taken_back = asyncio.Event()

    async def never(_call: ToolCall) -> ToolOutcome:
        try:
            await asyncio.Event().wait()
        finally:
            taken_back.set()
        return ToolOutcome()

    # Enough time to reach the call on a busy machine.
    program = Program("github.get_issue(1)", tools=TOOLS, limits=Limits(deadline=3.0))
    end = await sandbox.run(program, never)
    assert end.error
    assert end.error.name == "time"
    assert taken_back.is_set()


async def test_a_child_has_nothing_of_the_services_environment(sandbox: Sandbox) -> None:
    process = sandbox.launchers["starlark"].process
    assert process
    with open(f"/proc/{process.pid}/environ", "rb") as environment:  # noqa: ASYNC230, PTH123
        names = {entry.split(b"=")[0] for entry in environment.read().split(b"\0") if entry}
    assert names <= {b"LD_LIBRARY_PATH", b"LC_CTYPE"}
    assert len(os.environ) > len(names)


@pytest.mark.parametrize(
    ("name", "mapped"),
    [("create-issue", "create_issue"), ("2fa", "t_2fa"), ("import", "t_import"), ("", "tool")],
)
async def test_a_name_becomes_an_identifier(name: str, mapped: str) -> None:
    assert identifier(name) == mapped
    assert identifier(name, {mapped}) == f"{mapped}_2"


async def test_a_name_that_is_not_an_identifier_is_rejected() -> None:
    with pytest.raises(ValueError, match="is not an identifier"):
        Function("a-b", "a-b")
    with pytest.raises(ValueError, match="is not an identifier"):
        Namespace("json", "json", ())
