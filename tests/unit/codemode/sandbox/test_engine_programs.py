"""Programs of both engines in the sandbox, with real processes and filters."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.programs.sandbox_tools import AMPLE, TOOLS, Tools
from toolbus_codemode.sandbox.program import Engine, Limits, Program, ProgramResult
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings

Sandboxes = dict[Engine, Sandbox]
ENGINES: tuple[Engine, ...] = ("python", "starlark")
PYTHON_VALUES = [
        ("1 + 1", 2),
        ("result = 5\n7", 5),
        ("await github.get_issue(7, repo='a')", {"number": 7, "repo": "a"}),
        ("(await github.get_issue(number=7))['number']", 7),
        ("try:\n    await github.missing()\nexcept RuntimeError as e:\n    result = str(e)",
         "not_found: There is no such issue."),
        ("import asyncio\nawait asyncio.gather(*[github.meet(n) for n in range(2)])",
         [{"number": 0}, {"number": 1}]),
]  # fmt: skip
STARLARK_VALUES = [
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
]
PYTHON_ERRORS = [
    ("x = 1 +", "syntax", 1, "Correct"),
    ("1\nawait github.get_isue(1)", "unknown_tool", 2, "github.get_issue(number, repo=…)"),
    ("nope(1)", "unknown_name", 1, "servers github"),
    ("await github.get_issue()", "wrong_argument", 1, "github.get_issue(number, repo=…)"),
    ("await github.missing()", "tool_failed", 1, "try/except"),
    ("import asyncio\ngithub.get_issue(1)", "not_plain", None, "(await github.get_issue(1))"),
    ("import asyncio\ngithub.get_issue(1)['a']", "runtime", 2, "(await github.get_issue(1))"),
    ("class A:\n    pass\nA()", "not_plain", None, "result"),
    ("def f():\n    f()\nf()", "too_deep", 2, "loop"),
    ("'a' * 1000000000", "memory", 1, "fewer"),
    ("'x' * 2000000", "output_too_large", None, "fields"),
    ("for i in range(1000000):\n    print('x' * 100)", "output_too_large", None, "fields"),
    ("for i in range(101):\n    await github.get_issue(i)", "too_many_calls", 2, "fewer"),
    ("open('/etc/passwd').read()", "runtime", 1, ""),
]
STARLARK_ERRORS = [
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
]
HANGING = [
    ("python", "max(range(20000000000))"),
    ("python", "while True:\n    pass"),
    ("starlark", "max(range(2000000000))"),
    ("starlark", "for i in range(1000000000):\n    pass"),
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandboxes() -> AsyncIterator[Sandboxes]:
    started = {
        engine: Sandbox(SandboxSettings(engines=(engine,), spares=1, default=AMPLE))
        for engine in ENGINES
    }
    for sandbox in started.values():
        await sandbox.start()
    yield started
    for sandbox in started.values():
        await sandbox.close()


async def ended(sandbox: Sandbox, source: str, limits: Limits = AMPLE) -> ProgramResult:
    (engine,) = sandbox.launchers
    return await sandbox.run(Program(source, engine, TOOLS, limits), Tools().call)


@pytest.mark.parametrize(
    ("engine", "source", "value"),
    [
        *(("python", *each) for each in PYTHON_VALUES),
        *(("starlark", *each) for each in STARLARK_VALUES),
    ],
)
async def test_a_program_returns_its_value(
    sandboxes: Sandboxes, engine: Engine, source: str, value: object
) -> None:
    end = await ended(sandboxes[engine], source)
    assert (end.error, end.value) == (None, value)


@pytest.mark.parametrize(
    ("engine", "source", "name", "line", "hint"),
    [
        *(("python", *each) for each in PYTHON_ERRORS),
        *(("starlark", *each) for each in STARLARK_ERRORS),
    ],
)
async def test_an_error_has_a_name_a_place_and_a_hint(
    sandboxes: Sandboxes, engine: Engine, source: str, name: str, line: int | None, hint: str
) -> None:
    error = (await ended(sandboxes[engine], source)).error
    assert error
    assert (error.name, error.line) == (name, line)
    assert hint.lower() in error.hint.lower()


@pytest.mark.parametrize(("engine", "source"), HANGING)
async def test_a_program_that_hangs_is_ended_at_its_deadline(
    sandboxes: Sandboxes, engine: Engine, source: str
) -> None:
    limits = Limits(deadline=0.5, memory=AMPLE.memory, cpu=AMPLE.cpu)
    end = await ended(sandboxes[engine], source, limits)
    assert end.error
    assert end.error.name == "time"
    assert end.seconds < 20  # the machine may be busy; the program would take far longer


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_protection_of_this_host_is_reported(
    sandboxes: Sandboxes, engine: Engine
) -> None:
    fields = {each.name: each.in_force for each in sandboxes[engine].protections}
    assert set(fields) == {"namespaces", "user", "no_new_privs", "landlock", "seccomp"}
    assert fields["seccomp"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_programs_run_after_the_engines_process_was_killed(
    sandboxes: Sandboxes, engine: Engine
) -> None:
    sandbox = sandboxes[engine]
    process = sandbox.launchers[engine].process
    assert process
    process.kill()
    await asyncio.get_running_loop().run_in_executor(None, process.wait)
    for _ in range(3):
        end = await ended(sandbox, "1 + 1")
    assert end.value == 2
