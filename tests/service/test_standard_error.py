"""Standard error of server processes: for operators, redacted, limited, and in no error."""

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harness.samples.canaries import card
from harness.waits import until
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.isolation.standard_error import BURST, LAST_LINES, StandardError
from toolbus_executor.known_secrets import KnownSecrets

SECRET = "kept-secret-0123456789"
WITH_AND_WITHOUT_NAMESPACES = pytest.mark.parametrize("namespaces", [True, False])


@pytest.fixture(autouse=True)
def info_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@asynccontextmanager
async def running(script: str, *words: str, namespaces: bool = True) -> AsyncIterator[Child]:
    errors = StandardError("s", KnownSecrets([SECRET]))
    child = Child(lambda _line: None, None, errors)
    command = [sys.executable, "-c", script, *words] if script else [*words]
    await child.start(command, dict(os.environ), None, Isolation(namespaces=namespaces))
    try:
        yield child
    finally:
        await child.close()


async def ended(script: str, *words: str, namespaces: bool = True) -> str:
    """Return the reason a program ended, as callers get it."""
    async with running(script, *words, namespaces=namespaces) as child:
        return await child.ended


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged lines."""
    text = [vars(each) for each in caplog.records if each.message == "upstream.stderr"]
    assert all(each["server"] == "s" for each in text)
    return [each["line"] for each in text]


@WITH_AND_WITHOUT_NAMESPACES
async def test_the_reason_of_an_exit_contains_no_output(
    caplog: pytest.LogCaptureFixture, *, namespaces: bool
) -> None:
    number = card()
    script = "import sys\nsys.stderr.write(' '.join(sys.argv[1:]))\nsys.exit(3)"
    reason = await ended(script, "cannot charge", number, SECRET, namespaces=namespaces)
    assert reason == "it exited with 3; its output is in the log of executor"
    assert logged(caplog) == ["cannot charge [redacted] [redacted]"]


async def test_a_secret_split_over_writes_and_lines_is_redacted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    half = len(SECRET) // 2
    script = (
        "import sys, time\nfor each in sys.argv[1:]:\n"
        "    sys.stderr.write(each); sys.stderr.flush(); time.sleep(0.02)"
    )
    await ended(script, "a", SECRET[:half], SECRET[half:], "b\n", SECRET[:5], "\n", SECRET[5:])
    assert logged(caplog) == ["a[redacted]b", "[redacted]", "[redacted]"]


async def test_lines_are_logged_while_the_process_runs(caplog: pytest.LogCaptureFixture) -> None:
    script = "import sys, time\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(600)"
    async with running(script):
        await until(lambda: logged(caplog) == ["ready"], "the line")


async def test_a_flood_is_limited_and_its_last_lines_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = "import sys\nfor n in range(20000): print('line', n, 'x' * 2000, file=sys.stderr)"
    await ended(script)
    lines = logged(caplog)
    assert BURST + LAST_LINES <= len(lines) < 1000
    assert max(map(len, lines)) <= 500
    numbers = [int(line.split()[1]) for line in lines]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) >= set(range(20000 - LAST_LINES, 20000))
    (omitted,) = (each for each in caplog.records if each.message == "upstream.stderr_omitted")
    assert vars(omitted)["lines"] == 20000 - len(lines)


async def test_control_characters_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    await ended("import sys\nsys.stderr.buffer.write(b'a\\x1b[2Jb\\xff\\r\\x00c')")
    (line,) = logged(caplog)
    assert line.isprintable()
    assert "[2Jb" in line


@WITH_AND_WITHOUT_NAMESPACES
async def test_a_program_cannot_imitate_its_supervisor(
    caplog: pytest.LogCaptureFixture, *, namespaces: bool
) -> None:
    lines = ["isolation: refused: words", "isolation: cannot start: words", "isolation: +words"]
    script = f"import sys\nfor each in {lines!r}: print(each, file=sys.stderr)\nsys.exit(4)"
    async with running(script, namespaces=namespaces) as child:
        assert "words" not in await child.ended
        assert "words" not in child.held
    assert logged(caplog) == lines


@WITH_AND_WITHOUT_NAMESPACES
async def test_the_reason_of_a_failed_start_is_toolbus_own_text(*, namespaces: bool) -> None:
    reason = await ended("", "no-such-program-anywhere", namespaces=namespaces)
    assert reason == "it cannot be started: No such file or directory"


async def test_missing_isolation_is_reported_with_the_supervisors_reason() -> None:
    errors = StandardError("s")
    child = Child(lambda _line: None, None, errors)
    held = Isolation(namespaces=False, network="none")
    try:
        await child.start([sys.executable, "-c", ""], dict(os.environ), None, held)
        assert "remove network" in await child.ended
    finally:
        await child.close()
