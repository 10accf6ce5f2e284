"""The launcher's parts: ports, the directory and its lock, a supervised process."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness.waiting import until
from toolbus_cli.launcher.child_process import Child, Program
from toolbus_cli.state_dir import State

STEADY = "import time\nprint('began', flush=True)\nwhile True: time.sleep(60)"

# Not by print: a signal that comes in the middle of another print would be its end.
STUBBORN = "import os, signal\nsignal.signal(15, lambda *_: os.write(1, b'no\\n'))\n" + STEADY


class Heard:
    """A child's output and what is said about it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def line(self, _name: str, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str, _level: str) -> None:
        self.notes.append(text)


@asynccontextmanager
async def child(tmp_path: Path, code: str, heard: Heard) -> AsyncIterator[Child]:
    program = Program("worker", [sys.executable, "-c", code], heard.line)
    with State(tmp_path).locked(print) as held:
        made = Child(program, heard.note, held)
        try:
            yield made
        finally:
            await made.stop(5)


async def test_a_process_that_ends_is_started_again(tmp_path: Path) -> None:
    received = Heard()
    async with child(tmp_path, "print('once', flush=True); raise SystemExit(3)", received):
        await until(lambda: received.lines.count("once") >= 3, "three lives")
    assert "exit code 3" in received.notes[0]
    assert "restarting in 0.1 s" in received.notes[0]
    assert "restarting in 0.2 s" in received.notes[1]


async def test_a_killed_process_is_started_again_under_another_pid(tmp_path: Path) -> None:
    received = Heard()
    async with child(tmp_path, STEADY, received) as made:
        await until(lambda: received.lines)
        first = made.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(received.lines) == 2, "the second life")
        assert made.pid not in (None, first)
    assert "SIGKILL" in received.notes[0]


async def test_a_program_that_is_not_there_is_said_and_tried_again(tmp_path: Path) -> None:
    received = Heard()
    program = Program("worker", ["/nowhere/program"], received.line)
    with State(tmp_path).locked(print) as held:
        made = Child(program, received.note, held)
        await until(lambda: made.starts >= 2)
        await made.stop(5)
    assert "cannot start /nowhere/program" in received.lines[0]


async def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    received = Heard()
    async with child(tmp_path, STUBBORN, received) as made:
        await until(lambda: received.lines)
        await made.stop(0.2)
        assert made.pid is None
    assert "killed" in received.notes[-1]


async def test_a_line_of_any_length_is_read(tmp_path: Path) -> None:
    received = Heard()
    code = "print('x' * 3_000_000); print('after', flush=True)\n" + STEADY
    async with child(tmp_path, code, received):
        await until(lambda: "began" in received.lines, "what came after the long line")
    assert "after" in received.lines


async def test_stopping_at_once_leaves_nothing(tmp_path: Path) -> None:
    received = Heard()
    async with child(tmp_path, STEADY, received) as made:
        await asyncio.sleep(0)
        await made.stop(5)
        assert made.pid is None


def test_a_killed_launcher_takes_its_processes_along(tmp_path: Path) -> None:
    """The launcher is killed, so only the kernel can end what it started."""
    code = f"""
import asyncio
from toolbus_cli.launcher.child_process import Child, Program
from toolbus_cli.state_dir import State
from pathlib import Path
async def main():
    with State(Path({str(tmp_path)!r})).locked(print) as held:
        say = lambda name, line: print(made.pid, flush=True)
        made = Child(Program("w", [{sys.executable!r}, "-c", {STEADY!r}], say), print, held)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    launcher.kill()
    launcher.communicate()
    with State(tmp_path).locked(print):  # held by the child as long as it lives
        pass
