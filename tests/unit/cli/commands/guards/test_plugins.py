"""New projects of plugins: their names, and that no existing directory is touched."""

from pathlib import Path

import pytest

from toolbus_cli.commands.guards.plugins import Language, new
from toolbus_cli.errors import CommandError


@pytest.mark.parametrize("language", [*Language])
def test_a_new_project_has_the_name_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], language: Language
) -> None:
    new("hide-it", lang=language, directory=tmp_path / "made")
    texts = "".join(each.read_text() for each in (tmp_path / "made").iterdir())
    assert "hide" in texts
    assert "plugin-name" not in texts
    assert "plugin_name" not in texts
    assert "plugins:\n  hide-it: {" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a b", "../up", "a" * 33, "ünicode-\u202e"])
def test_a_name_that_cannot_be_a_module_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="cannot be the name"):
        new(name, directory=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_existing_directory_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(CommandError, match="exists already"):
        new("hide-it", directory=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
