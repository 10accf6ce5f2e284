"""A supervised child process: restart, stop, output."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness.waits import until
from toolbus_cli.launcher.child_process import Child, Program
from toolbus_cli.state_dir import State

STEADY = "import time\nprint('began', flush=True)\nwhile True: time.sleep(60)"

# `os.write`: a signal handler must not interrupt a `print` with another.
STUBBORN = "import os, signal\nsignal.signal(15, lambda *_: os.write(1, b'no\\n'))\n" + STEADY


class Output:
    """The lines of a child and the launcher's notes about it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def line(self, _name: str, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str, _level: str) -> None:
        self.notes.append(text)


@asynccontextmanager
async def child(tmp_path: Path, code: str, output: Output) -> AsyncIterator[Child]:
    program = Program("worker", [sys.executable, "-c", code], output.line)
    with State(tmp_path).locked(print) as held:
        made = Child(program, output.note, held)
        try:
            yield made
        finally:
            await made.stop(5)


async def test_a_process_that_exits_is_restarted(tmp_path: Path) -> None:
    output = Output()
    async with child(tmp_path, "print('once', flush=True); raise SystemExit(3)", output):
        await until(lambda: output.lines.count("once") >= 3, "three starts")
    assert "exit code 3" in output.notes[0]
    assert "restarting in 0.1 s" in output.notes[0]
    assert "restarting in 0.2 s" in output.notes[1]


async def test_a_killed_process_is_restarted_with_another_pid(tmp_path: Path) -> None:
    output = Output()
    async with child(tmp_path, STEADY, output) as made:
        await until(lambda: output.lines)
        first = made.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(output.lines) == 2, "the restart")
        assert made.pid not in (None, first)
    assert "SIGKILL" in output.notes[0]


async def test_a_missing_program_is_reported_and_retried(tmp_path: Path) -> None:
    output = Output()
    program = Program("worker", ["/nowhere/program"], output.line)
    with State(tmp_path).locked(print) as held:
        made = Child(program, output.note, held)
        await until(lambda: made.starts >= 2)
        await made.stop(5)
    assert "cannot start /nowhere/program" in output.lines[0]


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    output = Output()
    async with child(tmp_path, STUBBORN, output) as made:
        await until(lambda: output.lines)
        await made.stop(0.2)
        assert made.pid is None
    assert "killed" in output.notes[-1]


async def test_a_line_of_any_length_is_read(tmp_path: Path) -> None:
    output = Output()
    code = "print('x' * 3_000_000); print('after', flush=True)\n" + STEADY
    async with child(tmp_path, code, output):
        await until(lambda: "began" in output.lines, "the line after the long one")
    assert "after" in output.lines


async def test_a_process_stopped_during_its_start_leaves_nothing(tmp_path: Path) -> None:
    output = Output()
    async with child(tmp_path, STEADY, output) as made:
        await asyncio.sleep(0)
        await made.stop(5)
        assert made.pid is None


def test_processes_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    # A killed launcher cannot clean up: the kernel must end its children.
    code = f"""
import asyncio
from toolbus_cli.launcher.child_process import Child, Program
from toolbus_cli.state_dir import State
from pathlib import Path
async def main():
    with State(Path({str(tmp_path)!r})).locked(print) as held:
        report = lambda name, line: print(made.pid, flush=True)
        made = Child(Program("w", [{sys.executable!r}, "-c", {STEADY!r}], report), print, held)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    launcher.kill()
    launcher.communicate()
    with State(tmp_path).locked(print):  # the child holds the lock while it runs
        pass
