"""The option `models` without Presidio."""

import sys

import pytest

from toolbus_common.guards.personal_data import models
from toolbus_common.guards.personal_data.detector import PersonalDataDetector


def test_a_missing_extra_is_an_error_that_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    models._engine.cache_clear()
    with pytest.raises(models.MissingModelError, match=r"run pip install 'toolbus\[presidio\]'"):
        PersonalDataDetector(options={"models": True})


def test_without_the_option_no_model_is_loaded() -> None:
    assert "+" not in PersonalDataDetector(options={"models": False}).version
