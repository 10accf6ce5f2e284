"""Corrected lines in the errors of programs that misspell a call."""

from typing import Any

import pytest

from toolbus_codemode.sandbox.call_correction import LONGEST_CALL, LONGEST_VALUE, corrected
from toolbus_codemode.sandbox.error_hints import explained
from toolbus_codemode.sandbox.program import Engine, Function, Namespace, Program, ProgramError
from toolbus_codemode.sandbox.protocol import ProgramFailed, Start
from toolbus_codemode.sandbox.session import tools
from toolbus_codemode.sandbox.starlark.engine import Run

SUM = Function("get_sum", "get-sum", ("a", "b"), 2)
ECHO = Function("echo", "echo", ("message", "times"), 1)
SERVERS = (
    Namespace("everything", "every-thing", (SUM, ECHO)),
    Namespace("mail", "mail", (Function("send", "send", ("to", "text"), 2), ECHO)),
)


def error_of(source: str) -> ProgramError:
    """Return the error of a Starlark program, from the engine in this process."""
    spaces = {each.name: tools(each) for each in SERVERS}
    run: Any = Run(Start(source, spaces, 60, 10, 1 << 20, 1 << 20, 1 << 28), lambda _calls: ())
    failed = run.run()
    assert isinstance(failed, ProgramFailed)
    return explained(failed, Program(source, "starlark", SERVERS))


SUMS = [
    "server.tool('get_sum', a=17, b=25)",
    "everything.tool('get_sum', a=17, b=25)",
    "everything.get_sum('get_sum', a=17, b=25)",
    "call_tool('get_sum', a=17, b=25)",
    "call_tool('every-thing__get-sum', a=17, b=25)",
    "call_tool('everything', 'get_sum', {'a': 17, 'b': 25})",
    "call_tool('everything', 'get_sum', arguments={'a': 17, 'b': 25})",
    "everything.call(everything, 'get_sum', **{'b': 25, 'a': 17})",
    "everything['get_sum'](a=17, b=25)",
    "server['get_sum'](17, b=25)",
    "everything('get_sum', 17, 25)",
    "everything__get_sum(a=17, b=25)",
    "call('everything.get_sum', a=17, b=25)",
    "get_sum(17, 25)",
    "everything.get_sum(17, 25, 3)",
    "everything.get_sum({'a': 17, 'b': 25})",
]


@pytest.mark.parametrize("source", SUMS)
def test_the_error_of_a_misspelled_call_has_the_corrected_line(source: str) -> None:
    error = error_of(f"x = 1\nresult = {source}")
    assert error.line == 2
    assert error.hint.splitlines()[0] == "Write everything.get_sum(a=17, b=25)"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("everything.get_sum(17)", "Write everything.get_sum(a=17, b=…)"),
        ("mail.send('a', 'b', 'c')", "Write mail.send(to='a', text='b')"),
        ("mail.send('a', txt='b')", "Write mail.send(to='a', text='b')"),
        ("print(mail.send(\n  'a',\n  'b',\n  'c'))", "Write mail.send(to='a', text='b')"),
        ("try_call('mail.send', to='a', text=')')", "Write try_call(mail.send, to='a', text=')')"),
        ("parallel([call('send', 'a', 'b')])", "Write call(mail.send, to='a', text='b')"),
        ("tool.echo('a')", "Write everything.echo(message='a') or mail.echo(message='a')"),
    ],
)
def test_arguments_get_the_names_of_the_parameters(source: str, line: str) -> None:
    assert error_of(source).hint.splitlines()[0] == line


def test_the_corrected_line_is_followed_by_the_usage_of_the_tool() -> None:
    error = error_of("everything.get_sum(1, 2, 3)")
    assert error.hint.splitlines()[1] == "Usage: everything.get_sum(a, b)"


@pytest.mark.parametrize(
    "source",
    [
        "nope(1)",
        "call_tool('nope', a=1)",
        "everything.get_sum(*[1])",
        "mail.nope('echo1')",
        "1 // 0",
    ],
)
def test_a_call_of_no_known_tool_gets_no_corrected_line(source: str) -> None:
    assert not error_of(source).hint.startswith("Write ")


@pytest.mark.parametrize(
    ("message", "name", "source"),
    [
        ("name 'call_tool' is not defined", "unknown_name", "call_tool('get_sum', a=1, b=2)"),
        ("'module' object is not subscriptable", "runtime", "everything['get_sum'](1, 2)"),
    ],
)
def test_the_corrected_line_of_python_awaits_the_call(message: str, name: str, source: str) -> None:
    failed = ProgramFailed(name, message, 1, 1)
    error = explained(failed, Program(source, "python", SERVERS))
    assert error.hint == "Write await everything.get_sum(a=1, b=2)"


@pytest.mark.parametrize("engine", ["starlark", "python"])
@pytest.mark.parametrize(
    "source",
    [
        "x('get_sum'" + "(" * 5_000,
        "x" * 60_000,
        "x." * 30_000 + "x(",
        "x(" * 20_000,
        "x['" * 20_000,
        "x(" + "-" * 50_000 + "1)",
        "x('get_sum', '" + "y" * 60_000,
        "\\" * 60_000,
        "x(f'{'get_sum'}')",
    ],
)
def test_hostile_source_gets_no_corrected_line_and_no_error(engine: Engine, source: str) -> None:
    program = Program(source, engine, SERVERS)
    for line in (None, -1, 0, 1, 2, 1 << 80):
        assert corrected(program, line, "x") == ""


def test_a_long_argument_is_an_ellipsis_and_a_call_beyond_the_limit_is_not_corrected() -> None:
    long = f"x('get_sum', a='{'y' * LONGEST_VALUE}', b=2)"
    assert corrected(Program(long, tools=SERVERS), 1, "x") == "Write everything.get_sum(a=…, b=2)"
    longer = f"x('get_sum', a='{'y' * LONGEST_CALL}', b=2)"
    assert corrected(Program(longer, tools=SERVERS), 1, "x") == ""
