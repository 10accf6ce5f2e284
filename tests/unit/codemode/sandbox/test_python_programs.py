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


# Modules of the engine's standard library, and names with a meaning in programs.
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
    source = "import time\nif 1 > 2:\n    time.sleep(1)\nawait time.now()"
    end = await sandbox.run(Program(source, "python", tools, AMPLE), Tools().call)
    assert end.error is not None
    assert "`import time as lib_time`" in end.error.hint


async def test_an_import_for_the_tools_of_a_server_hides_nothing(sandbox: Sandbox) -> None:
    seen, tools = Tools(), (Namespace("time", "time", (Function("now", "now"),)),)
    source = "import time\nawait time.now()"
    end = await sandbox.run(Program(source, "python", tools, AMPLE), seen.call)
    assert end.error is None
    assert [each.server for each in seen.calls] == ["time"]


async def test_a_server_under_another_name_is_named_in_the_hint(sandbox: Sandbox) -> None:
    tools = (
        Namespace("results", "toolbus", (Function("read", "read", ("handle",), 1),)),
        Namespace("results_2", "results", (Function("search", "search"),)),
    )
    end = await sandbox.run(Program("await results.search()", "python", tools, AMPLE), Tools().call)
    assert end.error is not None
    assert end.error.hint == "In programs, the server 'results' is called results_2."


AWAITED = [
    ("github.get_issue(7)", {"number": 7}),
    ("result = github.get_issue(number=7)['number']", 7),
    ("x = [github.get_issue(n)['number'] for n in (1, 2)]\nresult = sum(x)", 3),
    ("if github.get_issue(7):\n    result = 'found'", "found"),
    ("for n in (1, 2):\n    result = github.get_issue(\n        n\n    )['number']", 2),
    ("result = github.get_issue(github.get_issue(7)['number'])", {"number": 7}),
]


@pytest.mark.parametrize(("source", "value"), AWAITED)
async def test_calls_of_a_program_without_await_are_awaited(
    sandbox: Sandbox, source: str, value: object
) -> None:
    end = await ended(sandbox, source)
    assert end.error is None
    assert end.value == value


async def test_an_error_of_an_awaited_call_has_the_line_that_was_sent(sandbox: Sandbox) -> None:
    error = (await ended(sandbox, "x = 1\n\nresult = github.missing()")).error
    assert error
    assert (error.name, error.line) == ("tool_failed", 3)


async def test_output_is_returned(sandbox: Sandbox) -> None:
    assert (await ended(sandbox, "print('a', 1)\nprint('b')")).prints == "a 1\nb\n"


async def test_an_exception_of_the_service_is_hidden_from_the_program(sandbox: Sandbox) -> None:
    source = "try:\n    await github.broken()\nexcept Exception as e:\n    result = repr(e)"
    end = await ended(sandbox, source)
    assert "internal" in end.value
    assert "a-secret" not in repr(end)


async def test_a_worker_serves_one_program(sandbox: Sandbox) -> None:
    await ended(sandbox, "left_behind = 1")
    error = (await ended(sandbox, "left_behind")).error
    assert error
    assert error.name == "unknown_name"


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
