"""The guard of kind pii with Presidio and a pipeline of spaCy from a directory."""

from importlib import import_module
from pathlib import Path

import pytest

from toolbus_common.config import Guard
from toolbus_common.guards.detectors import detector_of, rules_of
from toolbus_common.guards.personal_data.detector import PersonalDataDetector
from toolbus_common.guards.personal_data.models import LONGEST, MissingModelError

TEXT = "I met Ada Lovelace in Turin, write to ada@example.com"


@pytest.fixture(name="pipeline")
def _pipeline(tmp_path: Path) -> str:
    """Return the directory of a pipeline whose names are given, so that no model is downloaded."""
    spacy = import_module("spacy")
    nlp = spacy.blank("en")
    patterns = [
        {"label": "PERSON", "pattern": "Ada Lovelace"},
        {"label": "GPE", "pattern": "Turin"},
    ]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(tmp_path / "pipeline")
    return str(tmp_path / "pipeline")


def test_names_and_places_are_found_beside_the_matches_of_patterns(pipeline: str) -> None:
    detector = PersonalDataDetector(options={"models": True, "model": pipeline})
    found = [(each.rule, TEXT[each.start : each.end]) for each in detector.find([TEXT])]
    assert found == [
        ("person", "Ada Lovelace"),
        ("location", "Turin"),
        ("email", "ada@example.com"),
    ]
    assert "+spacy-" in detector.version


def test_excluded_rules_of_the_model_do_not_apply(pipeline: str) -> None:
    options = {"models": True, "model": pipeline}
    detector = PersonalDataDetector(None, ("person", "email"), options)
    assert [each.rule for each in detector.find([TEXT])] == ["location"]


def test_texts_that_are_too_long_for_the_model_are_an_error(pipeline: str) -> None:
    detector = PersonalDataDetector(options={"models": True, "model": pipeline})
    with pytest.raises(ValueError, match="cannot check more than"):
        detector.find(["word " * LONGEST])


def test_a_missing_model_is_not_downloaded_but_an_error_with_the_command() -> None:
    with pytest.raises(MissingModelError, match="python -m spacy download xx_no_model"):
        PersonalDataDetector(options={"models": True, "model": "xx_no_model"})


def test_a_guard_with_the_option_models_uses_the_model(pipeline: str) -> None:
    options = {"models": True, "model": pipeline}
    guard = Guard.model_validate({"kind": "pii", "on": ["results"], "options": options})
    assert "person" in {each.rule for each in detector_of(guard).find([TEXT])}
    plain = Guard.model_validate({"kind": "pii", "on": ["results"]})
    assert "person" not in {each.rule for each in detector_of(plain).find([TEXT])}
    assert {"person", "email"} <= {*rules_of(guard)}
    assert "person" not in rules_of(plain)
