"""The files of MCP clients: where they are, and how their contents are replaced."""

import stat
from pathlib import Path

import pytest

from toolbus_cli.client_files.paths import project_file, user_file
from toolbus_cli.client_files.write import LARGEST, replaced, text_of
from toolbus_cli.errors import CommandError
from toolbus_common.agent_clients.configurations import CLIENTS

HOME = Path("/people/ann")


@pytest.mark.parametrize(
    ("client", "environment", "platform", "expected"),
    [
        ("claude", {}, "linux", "/people/ann/.claude.json"),
        ("claude", {"CLAUDE_CONFIG_DIR": "/c"}, "linux", "/c/.claude.json"),
        ("codex", {}, "darwin", "/people/ann/.codex/config.toml"),
        ("codex", {"CODEX_HOME": "/x"}, "linux", "/x/config.toml"),
        ("cursor", {}, "linux", "/people/ann/.cursor/mcp.json"),
        ("gemini", {}, "linux", "/people/ann/.gemini/settings.json"),
        ("vscode", {}, "linux", "/people/ann/.config/Code/User/mcp.json"),
        ("vscode", {"XDG_CONFIG_HOME": "/s"}, "linux", "/s/Code/User/mcp.json"),
        ("vscode", {"APPDATA": "/r"}, "win32", "/r/Code/User/mcp.json"),
        (
            "claude-desktop", {}, "darwin",
            "/people/ann/Library/Application Support/Claude/claude_desktop_config.json",
        ),
    ],
)  # fmt: skip
def test_each_client_has_a_file_on_each_system(
    client: str, environment: dict[str, str], platform: str, expected: str
) -> None:
    assert user_file(client, HOME, environment, platform) == Path(expected)


def test_every_client_that_can_read_a_variable_has_a_file_for_a_project(tmp_path: Path) -> None:
    for client in CLIENTS.values():
        if client.reference:
            assert project_file(client.name, tmp_path).is_relative_to(tmp_path)
    with pytest.raises(CommandError, match="no configuration for a project"):
        project_file("claude-desktop", tmp_path)
    with pytest.raises(CommandError, match="not a directory"):
        project_file("cursor", tmp_path / "absent")


def test_the_earlier_contents_are_kept_in_a_private_backup(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("old")
    path.chmod(0o644)
    backups = [replaced(path, text, private=True) for text in ("new", "newer")]
    assert path.read_text() == "newer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.read_text() for each in backups if each] == ["old", "new"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in backups if each} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_new_file_has_no_backup_and_a_link_stays_a_link(tmp_path: Path) -> None:
    made = tmp_path / "made" / "deep" / "mcp.json"
    assert replaced(made, "text", private=False) is None
    link = tmp_path / "link.json"
    link.symlink_to(made)
    replaced(link, "other", private=False)
    assert link.is_symlink()
    assert made.read_text() == "other"


def test_the_rights_of_a_file_without_a_secret_stay(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("old")
    path.chmod(0o664)
    replaced(path, "new", private=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


def test_what_cannot_be_read_or_written_is_an_error_with_the_path(tmp_path: Path) -> None:
    assert text_of(tmp_path / "absent") == ""
    large = tmp_path / "large"
    large.touch()
    with large.open("r+b") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(CommandError, match="larger than"):
        text_of(large)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="cannot be read as text"):
        text_of(binary)
    with pytest.raises(CommandError, match="cannot be written"):
        replaced(binary / "below" / "mcp.json", "x", private=False)
