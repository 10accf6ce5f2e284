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
    ("source", "value"),
    [
        ("1 + 1", 2),
        ("x = 1", None),
        ("result = 5\n7", 5),
        ("github.get_issue(7, repo='a')", {"number": 7, "repo": "a"}),
        ("github.get_issue(number=7)['number']", 7),
        ("name = 'you'\nf'for {name}'", "for you"),
        ("json.decode(json.encode({'a': [1, 2.5, None, True]}))", {"a": [1, 2.5, None, True]}),
        ("try_call(github.get_issue, number=1).value", {"number": 1}),
        ("try_call(github.missing).ok", False),
        ("try_call(github.missing).error.code", "not_found"),
        ("parallel([])", []),
        ("[r.ok for r in parallel([call(github.missing)] * 2, catch=True)]", [False, False]),
    ],
)
async def test_a_program_comes_to_its_value(sandbox: Sandbox, source: str, value: object) -> None:
    end = await ended(sandbox, source)
    assert (end.error, end.value) == (None, value)


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
async def test_the_calls_of_parallel_branches_are_under_way_together(
    sandbox: Sandbox, source: str
) -> None:
    end = await ended(sandbox, source)
    assert (end.error, end.value) == (None, [{"number": 0}, {"number": 1}])


async def test_what_is_run_again_for_parallel_is_called_and_printed_once(sandbox: Sandbox) -> None:
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


@pytest.mark.parametrize(
    ("source", "name", "line", "hint"),
    [
        ("x = 1 +", "syntax", 1, "Correct"),
        ("\ngithub.get_isue(1)", "unknown_tool", 2, "github.get_issue(number, repo=…)"),
        ("get_issue(1)", "unknown_tool", 1, "github.get_issue"),
        ("nope(1)", "unknown_name", 1, "servers github"),
        ("github.get_issue()", "wrong_argument", 1, "github.get_issue(number, repo=…)"),
        ("github.get_issue(1, 2, 3)", "wrong_argument", 1, "github.get_issue(number, repo=…)"),
        ("github.get_issue(1, nmbr=2)", "wrong_argument", 1, "github.get_issue(number, repo=…)"),
        ("1\ngithub.missing()", "tool_failed", 2, "try_call"),
        ("try_call(len, [1])", "wrong_argument", 1, ""),
        ("parallel([1])", "wrong_argument", 1, ""),
        ("def f(n):\n    return f(n + 1)\nf(0)", "too_deep", 2, "loop"),
        ("1 // 0", "runtime", 1, ""),
        ("fail('enough')", "runtime", 1, ""),
        ("lambda: 1", "not_plain", None, "result"),
        ("x = []\nx.append(x)\nx", "not_plain", None, "result"),
        ("'a' * 1000000000", "memory", None, "fewer"),
        ("list(range(100000000))", "memory", None, "fewer"),
        ("list(range(1000000000))", "memory", None, "fewer"),
        ("[" * 201, "too_deep", 1, "Flatten"),
        ("1+" * 20000 + "1", "too_deep", None, ""),
        ("'x' * 2000000", "output_too_large", None, "fields"),
        ("for i in range(100000):\n    print('x' * 100)", "output_too_large", 2, "fields"),
        ("for i in range(101):\n    github.get_issue(i)", "too_many_calls", 2, "Fewer"),
        ("parallel([call(github.get_issue, 1)] * 101)", "too_many_calls", 1, "Fewer"),
        ("x = 1\n" * 20000, "source_too_large", None, "shorter"),
        ("\0", "syntax", None, ""),
    ],
)
async def test_an_error_has_a_name_a_place_and_a_hint(
    sandbox: Sandbox, source: str, name: str, line: int | None, hint: str
) -> None:
    error = (await ended(sandbox, source)).error
    assert error
    assert (error.name, error.line) == (name, line)
    assert hint.lower() in error.hint.lower()


async def test_an_exception_of_the_service_is_hidden_from_the_program(sandbox: Sandbox) -> None:
    end = await ended(sandbox, "r = try_call(github.broken)\nprint(r)\n[r.error.code, str(r)]")
    assert end.error is None
    assert end.value[0] == "internal"
    assert "a-secret" not in repr(end)


@pytest.mark.parametrize("source", ["max(range(2000000000))", "for i in range(10**9):\n    pass"])
async def test_a_program_that_hangs_is_ended_at_its_deadline(sandbox: Sandbox, source: str) -> None:
    end = await ended(sandbox, source.replace("10**9", "1000000000"), Limits(deadline=0.5))
    assert end.error
    assert end.error.name == "time"
    assert end.seconds < 20  # the machine may be busy; the program would take far longer


async def test_a_program_that_waits_for_a_tool_is_ended_and_its_call_taken_back(
    sandbox: Sandbox,
) -> None:
    taken_back = asyncio.Event()

    async def never(_asked: ToolCall) -> ToolOutcome:
        try:
            await asyncio.Event().wait()
        finally:
            taken_back.set()
        return ToolOutcome()

    # Time enough to come to the call, on the busiest of machines.
    program = Program("github.get_issue(1)", tools=TOOLS, limits=Limits(deadline=3.0))
    end = await sandbox.run(program, never)
    assert end.error
    assert end.error.name == "time"
    assert taken_back.is_set()


async def test_programs_run_on_after_the_zygote_died(sandbox: Sandbox) -> None:
    process = sandbox.launchers["starlark"].process
    assert process
    process.kill()
    await asyncio.get_running_loop().run_in_executor(None, process.wait)
    for _ in range(3):
        end = await ended(sandbox, "1 + 1")
    assert end.value == 2


async def test_every_protection_of_this_host_is_reported(sandbox: Sandbox) -> None:
    fields = {each.name: each.in_force for each in sandbox.protections}
    assert set(fields) == {"namespaces", "user", "no_new_privs", "landlock", "seccomp"}
    assert fields["seccomp"]


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
