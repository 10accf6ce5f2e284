"""The tree: small folders, each with its purpose, and modules named with nouns."""

import re
import subprocess

from harness.samples.source_facts import ROOT, module, name_of, python_files

PACKAGES = [
    path.parent
    for path in python_files("libs", "services", "cli", "demo")
    if path.name == "__init__.py"
]
MAX_MODULES = 12
ENTRIES_OF_THE_ROOT = {
    ".ci", ".dockerignore", ".gitattributes", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "bench", "cli", "demo", "deploy",
    "docs", "libs", "mkdocs.yml", "pyproject.toml", "services", "tests", "tools",
}  # fmt: skip
# Nouns of the field with this ending; `missing` and the like only begin a name.
NOUNS = re.compile(
    r"(balancing|binding|chaining|charging|encoding|hardening|importing|listing|loading|logging"
    r"|mapping|messaging|pricing|reasoning|routing|sampling|shredding|signing|spending|tracing)$"
)


def test_a_folder_holds_at_most_twelve_modules() -> None:
    modules = {name_of(folder): len(list(folder.glob("*.py"))) - 1 for folder in PACKAGES}
    assert {name: number for name, number in modules.items() if number > MAX_MODULES} == {}


def test_a_folder_states_its_purpose() -> None:
    purposes = {
        name_of(folder): module(folder / "__init__.py").docstring.split("\n\n")[0]
        for folder in PACKAGES
    }
    without = {
        name: purpose
        for name, purpose in purposes.items()
        if not purpose.endswith(".") or len(purpose.split()) < 3
    }
    assert without == {}


def test_modules_are_named_with_nouns() -> None:
    gerunds = [
        name_of(path)
        for folder in PACKAGES
        for path in (*folder.glob("*.py"), folder)
        if path.stem.endswith("ing") and not NOUNS.search(path.stem)
    ]
    assert gerunds == []


def test_the_root_holds_only_known_entries() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    at_root = {path.partition("/")[0] for path in listed.splitlines()}
    assert at_root - ENTRIES_OF_THE_ROOT == set()


def test_the_tree_in_contributing_names_every_folder_of_every_package() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("```text")[1].split("```")[0]
    folders = {
        folder.parent.name
        for package in ("cli/*", "libs/common/*", "services/*/*")
        for folder in ROOT.glob(f"{package}/*/__init__.py")
    }
    assert folders - set(re.findall(r"\w+", tree)) == set()
