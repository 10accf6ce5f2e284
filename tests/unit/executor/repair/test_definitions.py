"""Definitions repaired for strict clients: repairing is idempotent, digests are of the original."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.samples.odd_definitions import (
    GOOD,
    OBJECT,
    PROMPTS_SHOWN,
    RESOURCES_SHOWN,
    TEMPLATES_SHOWN,
    TOOLS_SHOWN,
    named,
)
from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_executor.repair import UnreadableError, read_definition
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.listing import listed

SHOWN = {
    "tools": ("name", TOOLS_SHOWN),
    "prompts": ("name", PROMPTS_SHOWN),
    "resources": ("uri", RESOURCES_SHOWN),
    "templates": ("uriTemplate", TEMPLATES_SHOWN),
}
DEFINITIONS = [
    pytest.param(kind, definition, id=f"{kind}-{definition[key]}")
    for kind, (key, cases) in SHOWN.items()
    for definition in named(key, cases)
]
MEMBERS = sorted(
    {member for _, cases in SHOWN.values() for case in cases.values() for member in case}
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "required", "src", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
SERVER = Described(
    "modern", "2026-07-28", capabilities={"tools": {}, "prompts": {}, "resources": {}}
)


@pytest.mark.parametrize(("kind", "definition"), DEFINITIONS)
def test_a_definition_is_repaired_idempotently(kind: str, definition: dict[str, Any]) -> None:
    once = read_definition(kind, definition)
    assert once.repaired
    again = read_definition(kind, once.definition)
    assert (again.definition, again.repaired) == (once.definition, "")


@given(st.sampled_from(sorted(SHOWN)), st.dictionaries(st.sampled_from(MEMBERS), VALUES))
def test_repairing_a_repaired_definition_changes_nothing(
    kind: str, members: dict[str, Any]
) -> None:
    known = {SHOWN[kind][0]: "odd://a", "inputSchema": OBJECT}
    try:
        once = read_definition(kind, known | members)
    except UnreadableError:
        return
    again = read_definition(kind, once.definition)
    assert (again.definition, again.repaired) == (once.definition, "")


async def listing(tools: list[Any], prompts: list[Any]) -> Listing:
    """Return the listing of a server with these lists."""
    pages = {"tools/list": {"tools": tools}, "prompts/list": {"prompts": prompts}}

    async def page(method: str, _cursor: str | None) -> dict[str, Any]:
        return pages.get(method, {"resources": [], "resourceTemplates": []})

    return await listed("s", SERVER, page)


async def test_the_digest_of_a_repaired_definition_is_of_the_original() -> None:
    tools, prompts = named("name", TOOLS_SHOWN), named("name", PROMPTS_SHOWN)
    found = await listing(tools, prompts)
    for sent, offered in ((tools, found.tools), (prompts, found.prompts)):
        by_name: dict[str, CatalogEntry] = {each.name: each for each in offered}
        assert len(by_name) == len(sent)
        for definition in sent:
            each = by_name[definition["name"]]
            assert each.repaired
            assert each.definition != definition
            assert each.as_sent == definition
            assert each.digest == digest_of(definition) != digest_of(each.definition)


async def test_definitions_with_equal_repairs_have_different_digests() -> None:
    null = {"name": GOOD[0], "inputSchema": OBJECT, "description": None}
    plain = {"name": GOOD[0], "inputSchema": OBJECT}
    (one,), (other,) = (await listing([null], [])).tools, (await listing([plain], [])).tools
    assert one.definition == other.definition
    assert one.digest != other.digest
