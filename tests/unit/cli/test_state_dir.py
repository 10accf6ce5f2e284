"""The state directory: its permissions, its lock and its files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import State, read_json, write_private


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
