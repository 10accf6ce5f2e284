"""Which class of clients sees which tools."""

import pytest

from toolbus_common.mcp.client_classes import ALL, CLASSES, NONE, class_of
from toolbus_executor.catalog.client_specific_lists import _is_shown, kinds_for
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING

SEEN = {
    NONE: {"plain", "without sampling"},
    "elicitation": {"plain", "without sampling"},
    "roots": {"plain", "without sampling", "with roots"},
    "sampling": {"plain", "with sampling"},
    ALL: {"plain", "with sampling", "with roots", "with sampling and roots"},
}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", CLASSES),
        ("with sampling", tuple(each for each in CLASSES if "sampling" in each)),
        ("with roots", tuple(each for each in CLASSES if "roots" in each)),
        ("without sampling", tuple(each for each in CLASSES if "sampling" not in each)),
        ("with sampling and roots", (ALL,)),
    ],
)
def test_a_tool_is_shown_to_the_client_classes_that_list_it(
    name: str, shown: tuple[str, ...]
) -> None:
    assert tuple(each for each in CLASSES if _is_shown(name, each, SEEN)) == shown


def test_a_client_belongs_to_the_class_of_its_capabilities() -> None:
    assert class_of({"sampling": {}, "roots": {"listChanged": True}}) == "roots+sampling"
    assert class_of({"elicitation": None, "tasks": {}}) == NONE
    assert class_of(None) == NONE


def test_the_outer_classes_declare_everything_and_nothing() -> None:
    assert kinds_for(ALL) == EVERYTHING
    assert kinds_for(NONE) == frozenset()
