"""The launcher's parts: ports, the directory and its lock, a supervised process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.waits import until
from toolbus_cli.errors import CommandError
from toolbus_cli.launcher import ports
from toolbus_cli.launcher.banner import Welcome, banner
from toolbus_cli.launcher.child_process import Child, Program
from toolbus_cli.state_dir import State, read_json, write_private

STEADY = "import time\nprint('began', flush=True)\nwhile True: time.sleep(60)"
# Not by print: a signal that comes in the middle of another print would be its end.
STUBBORN = "import os, signal\nsignal.signal(15, lambda *_: os.write(1, b'no\\n'))\n" + STEADY


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_remembered_port_is_used_again_while_it_is_free(listening: int) -> None:
    free = ports.free()
    assert ports.free(free) == free
    assert ports.free(listening) != listening
    assert ports.free("nonsense") > 0


def test_a_chosen_port_is_kept_for_a_child_and_from_everybody_else() -> None:
    port = ports.free()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((ports.LOOPBACK, port))
    with socket.create_server((ports.LOOPBACK, port)) as child:  # as every server of ours binds
        assert child.getsockname()[1] == port


def test_a_port_that_is_taken_is_refused_and_zero_is_any(listening: int) -> None:
    with pytest.raises(CommandError, match="is already in use"):
        ports.requested("127.0.0.1", listening)
    assert ports.requested("127.0.0.1", 0, listening) != listening


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1"):
        ports.requested("192.0.2.1", 8080)


def test_the_state_directory_is_its_owners_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "made" / "here")
    state.prepare()
    assert state.root.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="--state-dir"):
        State(tmp_path / "file" / "below").prepare()


def test_a_second_launcher_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked(print):
        write_private(state.run_file, {"pid": os.getpid()})
        with pytest.raises(CommandError, match=str(os.getpid())), state.locked(print):
            pass


def test_what_a_dead_launcher_left_running_is_waited_for(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked(print) as held:
        left = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(held,),
        )
    items: list[str] = []

    def told_and_ended(message: str) -> None:
        items.append(message)
        left.communicate()

    with state.locked(told_and_ended):
        assert "to exit" in items[0]


def test_a_private_file_is_whole_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_private(path, {"a": 1})
    write_private(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_torn_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_json(tmp_path / "run.json") == {}


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


def welcome(**fields: Any) -> str:
    values = {"endpoint": "http://127.0.0.1:1/mcp", "state_dir": ".toolbus", "servers": []}
    return banner(Welcome(**{**values, "demo": False, "key": "demo", **fields}))


def test_the_banner_says_what_to_paste_and_how_the_servers_are() -> None:
    ready = {"name": "notes", "state": "ready", "tools": 3, "last_failure": ""}
    lost = {"name": "dead", "state": "failed", "tools": 0, "last_failure": "It is gone."}
    shown = welcome(servers=[ready, lost], demo=True, secrets={"demo": "S"})
    assert "claude mcp add --transport http toolbus http://127.0.0.1:1/mcp" in shown
    assert '"Authorization": "Bearer S"' in shown
    assert "It is gone." in shown
    assert "toolbus call notes__clear" in shown


def test_the_banner_of_a_later_start_says_how_to_get_another_secret() -> None:
    shown = welcome()
    assert "was shown when it was created" in shown
    assert "toolbus keys rotate demo" in shown
