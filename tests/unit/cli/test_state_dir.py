"""The state directory: its permissions, its lock and its files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import State, read_json, write_private


def test_only_the_owner_may_open_the_state_directory(tmp_path: Path) -> None:
    state = State(tmp_path / "made" / "here")
    state.prepare()
    assert state.root.stat().st_mode & 0o777 == 0o700


def test_an_impossible_state_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="--state-dir"):
        State(tmp_path / "file" / "below").prepare()


@pytest.mark.parametrize("name", ["seal", "sealing", "seal.key"])
def test_a_state_directory_of_an_older_build_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CommandError, match=f"'{name}' of an older build"):
        State(tmp_path).prepare()


def test_a_second_launcher_is_rejected_naming_the_first_pid(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked(print):
        write_private(state.run_file, {"pid": os.getpid()})
        with pytest.raises(CommandError, match=str(os.getpid())), state.locked(print):
            pass


def test_processes_of_a_dead_launcher_are_awaited(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked(print) as lock:
        orphan = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
        )
    items: list[str] = []

    def on_wait(message: str) -> None:
        items.append(message)
        orphan.communicate()

    with state.locked(on_wait):
        assert "to exit" in items[0]


def test_a_private_file_is_replaced_atomically_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_private(path, {"a": 1})
    write_private(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_an_invalid_file_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_json(tmp_path / "run.json") == {}
