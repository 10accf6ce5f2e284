"""The generated reference pages are what the code says now, and leave nothing out."""

import pytest

from harness.samples.page_samples import ROOT
from reference import configuration, environment, errors, log_events, metrics
from reference.pages import PAGES, rendered
from reference.texts import texts

DESCRIBED = {
    "configuration": configuration.described,
    "environment": environment.described,
    "errors": lambda: {each.code for each in errors.documented()},
    "metrics": metrics.described,
}


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_up_to_date(page: str) -> None:
    committed = (ROOT / page).read_text()
    assert committed == rendered(page, committed), "run: make reference"


@pytest.mark.parametrize("page", DESCRIBED)
def test_every_entry_of_a_page_is_described_and_nothing_else(page: str) -> None:
    described = DESCRIBED[page]()
    assert sorted(described ^ set(texts(page))) == []


@pytest.mark.parametrize("code", texts("errors"))
def test_an_error_is_documented_with_a_fix(code: str) -> None:
    assert "\nDo: " in texts("errors")[code]


def test_every_log_event_has_a_constant_name() -> None:
    names = {each.name for each in log_events.catalogue()}
    assert {"service.ready", "process.ready"} <= names


def test_limits_have_the_unit_of_their_field() -> None:
    page = configuration.generated()
    assert "≤ 4194304 (4 MiB) | Maximum size of one request in bytes." in page
    assert "≤ 1000000000000 | Calls per period." in page
    assert "| at most 64 entries | Regions of the providers that may be used" in page
