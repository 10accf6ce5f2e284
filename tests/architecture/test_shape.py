"""The shape of the code: small files with docstrings, and a complete wheel."""

import builtins
import re
import statistics
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from harness.samples.source_facts import ROOT, module, name_of, python_files

SOURCE = python_files("libs", "services", "cli", "demo", "bench", "tools")
TESTS = python_files("tests")
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())
MAX_LINES = 400
HEADINGS = ["subscribes", "publishes", "owns"]
IN_ONE_FILE = {"libs/common/toolbus_common/evidence/verify.py": 920}  # auditors get a single file


def ninth_decile(numbers: list[int]) -> float:
    return statistics.quantiles(numbers, n=10)[-1]


def test_a_file_has_at_most_four_hundred_lines() -> None:
    lengths = {name_of(path): module(path).lines for path in SOURCE + TESTS}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert {name: n for name, n in long.items() if n > IN_ONE_FILE.get(name, MAX_LINES)} == {}


def test_a_module_docstring_has_a_summary() -> None:
    summary = re.compile(r"[A-Z`/].*[.?:]", re.DOTALL)
    summaries = {
        name_of(path): module(path).docstring.split("\n\n")[0].strip() for path in SOURCE + TESTS
    }
    assert {name: text for name, text in summaries.items() if not summary.fullmatch(text)} == {}


def test_an_error_that_a_docstring_names_exists() -> None:
    named: set[str] = set()
    existing = set(dir(builtins))
    for each in map(module, SOURCE):
        existing |= each.classes | each.imported
        for text in each.docstrings:
            named |= set(re.findall(r"(?:^\s*|`)([A-Z]\w+Error)(?:`|:)", text, re.MULTILINE))
    assert len(named) > 50
    assert named <= existing, named - existing


def test_functions_are_short() -> None:
    lengths = [each.lines for path in SOURCE for each in module(path).functions]
    assert statistics.median(lengths) < 10
    assert ninth_decile(lengths) < 35


def test_files_are_short() -> None:
    assert ninth_decile([module(path).lines for path in SOURCE]) < 300


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_main_names_its_messages_and_its_state(service: str) -> None:
    main = ROOT / "services" / service / f"toolbus_{service}" / "main.py"
    words = r"^(subscribes|publishes|queries|answers|owns)\b"
    headings = re.findall(words, module(main).docstring, re.MULTILINE)
    assert [word for word in headings if word not in ("queries", "answers")] == HEADINGS
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_readme_has_the_sections_of_every_service(service: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text().lower()
    for word in ("publishes", "owns", "failure modes", "configuration", "not implemented yet"):
        assert word in text, word


def packages() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return listed


def tracked() -> list[Path]:
    """Return the files in the repository, and new files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def test_the_wheel_holds_every_file_of_every_package(tmp_path: Path) -> None:
    builder = WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = {entry for entry in archive.namelist() if ".dist-info/" not in entry}
    on_disk = {
        path.relative_to(ROOT / package).as_posix()
        for package in (
            "libs/common",
            "cli",
            "demo",
            *(f"services/{service}" for service in SERVICES),
        )
        for path in tracked()
        if path.is_relative_to(ROOT / package)
    }
    # A README next to the package is not in it.
    packaged = {entry for entry in on_disk if "/" in entry}
    assert packed == packaged
    assert {
        "toolbus_common/web/templates/base.html",
        "toolbus_common/web/templates/style.css",
        "toolbus_oauth/web/templates/consent.html",
        "toolbus_ingress/approvals/templates/decision.html",
        "toolbus_cli/analytics/templates/report.html",
    } <= packed


def test_a_page_renders_from_the_wheel_alone(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import sys; sys.path[0] = sys.argv[1]\n"
        "from toolbus_common.web import html\n"
        "assert html.__file__.startswith(sys.argv[1]), html.__file__\n"
        "print(html.render('toolbus_common.web/message.html', title='Done', message='Hello'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "installed")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "<h1>Done</h1>" in shown


def test_every_package_on_disk_is_listed() -> None:
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for part in ("libs", "services", "cli", "demo")
        for path in (ROOT / part).rglob("__init__.py")
        if not (path.parent.parent / "__init__.py").exists()
    }
    assert found == set(packages())


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def test_no_file_names_a_path_of_one_machine() -> None:
    home = re.compile(r"(?<![\w.])/(?:home|Users)/\w+/|(?<![\w.])/root/")
    found = [
        name_of(path)
        for path in tracked()
        if path != Path(__file__) and (home.search(text := text_of(path)) or f"{ROOT}/" in text)
    ]
    assert found == []


def test_no_service_spells_a_subject_of_the_bus_by_hand() -> None:
    subject = re.compile(r"tb\.(call|run|reply|event|notification|query|resume|cancel|hook)\.")
    found = [
        f"{name_of(path)}:{line}: {value}"
        for path in SOURCE
        if not path.is_relative_to(ROOT / "libs")
        for line, value in module(path).strings
        if subject.match(value)
    ]
    assert found == []


def test_module_names_are_not_vague() -> None:
    vague = re.compile(r"(util|helper|manager|misc|impl)s?(\b|_|\.)", re.IGNORECASE)
    assert [name_of(path) for path in SOURCE if vague.search(path.name)] == []
