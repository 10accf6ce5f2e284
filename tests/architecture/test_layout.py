"""The tree: small folders, each with its purpose, and modules named with nouns."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(
    path.parent
    for part in ("libs", "services", "cli", "demo")
    for path in (ROOT / part).rglob("__init__.py")
)
MAX_MODULES = 12
# Nouns of the field with this ending; `missing` and the like only begin a name.
NOUNS = re.compile(
    r"(balancing|binding|chaining|charging|encoding|hardening|importing|listing|loading|logging"
    r"|mapping|messaging|pricing|reasoning|routing|sampling|shredding|signing|spending|tracing)$"
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", PACKAGES, ids=name)
def test_a_folder_holds_at_most_twelve_modules(folder: Path) -> None:
    modules = [each for each in folder.glob("*.py") if each.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES


@pytest.mark.parametrize("folder", PACKAGES, ids=name)
def test_a_folder_states_its_purpose(folder: Path) -> None:
    purpose = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    first = purpose.split("\n\n")[0]
    assert first.endswith(".")
    assert len(first.split()) > 2


def test_modules_are_named_with_nouns() -> None:
    gerunds = [
        name(path)
        for folder in PACKAGES
        for path in (*folder.glob("*.py"), folder)
        if path.stem.endswith("ing") and not NOUNS.search(path.stem)
    ]
    assert gerunds == []
