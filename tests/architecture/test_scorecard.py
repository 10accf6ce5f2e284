"""The scorecard: each line has a source, each stored figure is found, and the page is complete."""

import json
import re
from pathlib import Path

import pytest

from scorecard.history import stale
from scorecard.lines import LINES, ROOT, Figure, Line, ScorecardError, lines
from scorecard.page import PAGE, text, without_figures
from scorecard.results import Card, card

EVERY = lines()
IDS = [f"{area}{n}" for area, last in (("R", 12), ("S", 14), ("A", 5)) for n in range(1, last + 1)]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LOST = Figure("lost", "lost", "<= 0")


def line(**more: object) -> Line:
    return Line("R1", "Nothing is lost.", "make bench", "tried", figures=(LOST,), **more)  # type: ignore[arg-type]


def stored(folder: Path, day: int, report: dict[str, object]) -> None:
    (folder / f"tried-202611{day:02}-000000.json").write_text(json.dumps(report))


def _exists(path: str) -> bool:
    """Return whether a file exists, with the test that is named after `::`."""
    file, _, test = path.partition("::")
    found = ROOT / file
    return found.exists() and (not test or f"def {test}(" in found.read_text())


def test_every_line_is_there_once_and_in_order() -> None:
    assert [each.id for each in EVERY] == IDS


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.id)
def test_a_line_names_commands_tests_and_code_that_exist(each: Line) -> None:
    assert bool(each.every()) == bool(each.command)
    assert [path for path in (*each.all_tests, *each.code) if not _exists(path)] == []
    if each.command:
        program, *targets = re.sub(r" (ARGS|SUITE)=.*", "", each.command).split()
        assert program == "make"
        assert set(targets) <= TARGETS


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.id)
def test_each_figure_of_a_line_is_in_the_stored_results(each: Line) -> None:
    found = card(each).figures
    assert len(found) == len(each.every())
    assert [one for one in found if (one.value is None) != (one.result is None)] == []


def test_the_page_has_every_line_of_the_list() -> None:
    expected = without_figures(text([Card(each) for each in EVERY]))
    assert without_figures(PAGE.read_text()) == expected, "run: make scorecard ARGS=--write"
    assert [each for each in IDS if f"\n| {each} |" not in expected] == []


def test_a_requirement_without_a_test_or_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.toml"
    line = '[[line]]\nid = "S7"\ndemand = "All."\nunmeasured = "None."\nrequirements = '
    path.write_text(line + '[{id = "1.1", demand = "One."}]')
    with pytest.raises(ScorecardError, match=r"S7, 1\.1: add tests"):
        lines(path)


def test_a_line_without_a_figure_or_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.toml"
    path.write_text(LINES.read_text() + '\n[[line]]\nid = "A6"\ndemand = "More."\n')
    with pytest.raises(ScorecardError, match="A6 has no figure"):
        lines(path)


def test_the_newest_result_that_counts_is_compared_with_the_demand(tmp_path: Path) -> None:
    assert card(line(), tmp_path).verdict == "not measured"
    stored(tmp_path, 1, {"lost": 0, "whole": True, "minutes": 2})
    stored(tmp_path, 2, {"lost": 3})
    assert card(line(), tmp_path).verdict == "missed"
    whole = card(line(where="whole"), tmp_path)
    assert (whole.verdict, whole.figures[0].seconds) == ("met", 120)
    assert card(line(where="whole", unmeasured="Much."), tmp_path).verdict == "met in part"


def test_a_result_without_its_figure_is_an_error_and_not_an_older_figure(tmp_path: Path) -> None:
    stored(tmp_path, 1, {"lost": 0})
    stored(tmp_path, 2, {"losses": 0})
    with pytest.raises(ScorecardError, match="tried-20261102-000000"):
        card(line(), tmp_path)


def test_a_figure_of_another_history_is_stale(tmp_path: Path) -> None:
    stored(tmp_path, 1, {"lost": 0, "commit": "0123456789"})
    assert "0123456789" in stale(card(line(), tmp_path))
