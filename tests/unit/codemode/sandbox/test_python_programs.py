"""Python programs in the sandbox, with real workers and filters."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.programs.sandbox_tools import AMPLE, TOOLS, Tools
from toolbus_codemode.catalog.identifiers import RESERVED, distinct
from toolbus_codemode.sandbox.process import launcher
from toolbus_codemode.sandbox.program import (
    Function,
    Limits,
    Namespace,
    Program,
    ProgramResult,
)
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    settings = SandboxSettings(engines=("python",), spares=1, default=AMPLE)
    started = Sandbox(settings)
    await started.start()
    yield started
    await started.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ended(sandbox: Sandbox, source: str, limits: Limits = AMPLE) -> ProgramResult:
    return await sandbox.run(Program(source, "python", TOOLS, limits), Tools().call)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 1", 2),
        ("result = 5\n7", 5),
        ("await github.get_issue(7, repo='a')", {"number": 7, "repo": "a"}),
        ("(await github.get_issue(number=7))['number']", 7),
        ("try:\n    await github.missing()\nexcept RuntimeError as e:\n    result = str(e)",
         "not_found: There is no such issue."),
        ("import asyncio\nawait asyncio.gather(*[github.meet(n) for n in range(2)])",
         [{"number": 0}, {"number": 1}]),
    ],
)  # fmt: skip
async def test_a_program_comes_to_its_value(sandbox: Sandbox, source: str, value: object) -> None:
    end = await ended(sandbox, source)
    assert (end.error, end.value) == (None, value)


# Modules of the engine's own standard library, and names that mean something to a program.
AWKWARD = (
    "time", "math", "re", "os", "sys", "datetime", "pathlib", "json", "asyncio", "typing", "random",
    "collections", "itertools", "functools", "dataclasses", "decimal", "hashlib", "base64", "copy",
    "results", "result", "print", "call", "list", "class", "import", "load", "a.b", "1st", "_",
)  # fmt: skip


async def test_a_server_of_any_name_can_be_called(sandbox: Sandbox) -> None:
    spaces = distinct(AWKWARD, RESERVED)
    tools = tuple(
        Namespace(space, server, (Function("hello", "hello", ("word",)),))
        for space, server in spaces.items()
    )
    calls = ", ".join(f"await {space}.hello('{space}')" for space in spaces)
    seen = Tools()
    end = await sandbox.run(Program(f"[{calls}]", "python", tools, AMPLE), seen.call)
    assert end.error is None
    assert end.value == [{"word": space} for space in spaces]
    assert [each.server for each in seen.calls] == list(spaces.values())


async def test_a_server_may_be_imported_by_its_name(sandbox: Sandbox) -> None:
    assert (await ended(sandbox, "import github\nawait github.get_issue(7)")).value == {"number": 7}


async def test_an_import_that_hides_a_server_is_named_in_the_hint(sandbox: Sandbox) -> None:
    tools = (Namespace("time", "time", (Function("now", "now"),)),)
    source = "import time\nawait time.now()"
    end = await sandbox.run(Program(source, "python", tools, AMPLE), Tools().call)
    assert end.error is not None
    assert "`import time as lib_time`" in end.error.hint


async def test_a_server_under_another_name_is_named_in_the_hint(sandbox: Sandbox) -> None:
    tools = (
        Namespace("results", "toolbus", (Function("read", "read", ("handle",), 1),)),
        Namespace("results_2", "results", (Function("search", "search"),)),
    )
    end = await sandbox.run(Program("await results.search()", "python", tools, AMPLE), Tools().call)
    assert end.error is not None
    assert end.error.hint == "Programs call the server 'results' by the name results_2."


async def test_prints_come_back(sandbox: Sandbox) -> None:
    assert (await ended(sandbox, "print('a', 1)\nprint('b')")).prints == "a 1\nb\n"


@pytest.mark.parametrize(
    ("source", "name", "line", "hint"),
    [
        ("x = 1 +", "syntax", 1, "Correct"),
        ("1\nawait github.get_isue(1)", "unknown_tool", 2, "github.get_issue(number, repo=…)"),
        ("nope(1)", "unknown_name", 1, "servers github"),
        ("await github.get_issue()", "wrong_argument", 1, "github.get_issue(number, repo=…)"),
        ("await github.missing()", "tool_failed", 1, "try/except"),
        ("github.get_issue(1)", "not_plain", None, "result"),
        ("github.get_issue(1)['number']", "runtime", 1, "(await server.tool"),
        ("class A:\n    pass\nA()", "not_plain", None, "result"),
        ("def f():\n    f()\nf()", "too_deep", 2, "loop"),
        ("'a' * 1000000000", "memory", 1, "fewer"),
        ("'x' * 2000000", "output_too_large", None, "fields"),
        ("for i in range(1000000):\n    print('x' * 100)", "output_too_large", None, "fields"),
        ("for i in range(101):\n    await github.get_issue(i)", "too_many_calls", 2, "fewer"),
        ("open('/etc/passwd').read()", "runtime", 1, ""),
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
    source = "try:\n    await github.broken()\nexcept Exception as e:\n    result = repr(e)"
    end = await ended(sandbox, source)
    assert "internal" in end.value
    assert "a-secret" not in repr(end)


@pytest.mark.parametrize("source", ["max(range(20000000000))", "while True:\n    pass"])
async def test_a_program_that_hangs_is_ended_at_its_deadline(sandbox: Sandbox, source: str) -> None:
    end = await ended(sandbox, source, Limits(deadline=0.5, memory=AMPLE.memory, cpu=AMPLE.cpu))
    assert end.error
    assert end.error.name == "time"


async def test_a_worker_serves_one_program(sandbox: Sandbox) -> None:
    await ended(sandbox, "left_behind = 1")
    error = (await ended(sandbox, "left_behind")).error
    assert error
    assert error.name == "unknown_name"


async def test_every_protection_of_this_host_is_reported(sandbox: Sandbox) -> None:
    fields = {each.name: each.in_force for each in sandbox.protections}
    assert set(fields) == {"namespaces", "user", "no_new_privs", "landlock", "seccomp"}
    assert fields["seccomp"]


async def test_programs_run_on_after_their_host_died(sandbox: Sandbox) -> None:
    process = sandbox.launchers["python"].process
    assert process
    process.kill()
    await asyncio.get_running_loop().run_in_executor(None, process.wait)
    for _ in range(2):
        end = await ended(sandbox, "1 + 1")
    assert end.value == 2


async def test_a_host_that_is_killed_leaves_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "KEPT_ENVIRONMENT", (*launcher.KEPT_ENVIRONMENT, "TMPDIR"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sandbox = Sandbox(SandboxSettings(engines=("python",), spares=0, default=AMPLE))
    try:
        assert (await ended(sandbox, "1 + 1")).value == 2
        process = sandbox.launchers["python"].process
        assert process
        process.kill()
        await asyncio.get_running_loop().run_in_executor(None, process.wait)
        assert os.listdir(tmp_path) == []  # noqa: PTH208
    finally:
        await sandbox.close()
