"""Tools that are added to a model request: names, forms, clashes, limits and encoding."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.config import InjectionLimits
from toolbus_common.errors import InvalidError
from toolbus_common.model_api.tool_forms import Form, definition_of
from toolbus_ingress.models_api.tool_injection import (
    add_tools,
    added_tools,
    safe_name,
    with_tools,
)

SCHEMA = {"type": "object", "properties": {"zone": {"type": "string"}}}
CLOCK = {"name": "clock__now", "description": "Tell the time.", "inputSchema": SCHEMA}
LONG = {"name": "docs__" + "x" * 80, "inputSchema": {"type": "object"}}
OWN = {"type": "function", "function": {"name": "mine", "parameters": SCHEMA}}
FORMS = list(Form)


def merged(body: dict[str, Any], tools: list[dict[str, Any]], form: Form) -> dict[str, Any]:
    """Return a body with added tools, after a check that both ways of adding agree."""
    added = added_tools(tools, form)
    own = json.dumps(body["tools"]).encode() if body.get("tools") is not None else None
    own = b"" if own is None and "tools" in body else own
    encoded, count = with_tools(json.dumps(body).encode(), own, added)
    add_tools(body, added)
    assert json.loads(encoded) == body
    assert count == len(body["tools"])
    return body


@pytest.mark.parametrize("form", FORMS)
def test_tools_are_added_in_the_form_of_each_api(form: Form) -> None:
    body = merged({"model": "m"}, [CLOCK], form)
    assert body == {"model": "m", "tools": [definition_of(CLOCK, form)]}


def test_the_tools_of_the_client_stay_first() -> None:
    body = merged({"tools": [OWN], "model": "m", "x": {"tools": 1}}, [CLOCK], Form.CHAT)
    assert body["tools"] == [OWN, definition_of(CLOCK, Form.CHAT)]


@pytest.mark.parametrize("own", [None, []])
def test_an_empty_list_of_tools_is_no_list(own: list[Any] | None) -> None:
    body = merged({"tools": own, "model": "m"}, [CLOCK], Form.MESSAGES)
    assert body["tools"] == [definition_of(CLOCK, Form.MESSAGES)]


def test_the_last_of_repeated_members_counts() -> None:
    added = added_tools([CLOCK], Form.CHAT)
    own = json.dumps([OWN]).encode()
    body = b'{"tools":[{"function":{"name":"hidden"}}],"model":"m","tools":%b}' % own
    encoded, count = with_tools(body, own, added)
    assert count == 2
    assert encoded.count(b'"tools"') == 1
    assert b"hidden" not in encoded


@pytest.mark.parametrize("form", FORMS)
def test_a_tool_that_the_client_has_listed_is_not_repeated(form: Form) -> None:
    listed = definition_of(CLOCK, form)
    assert merged({"tools": [listed]}, [CLOCK], form)["tools"] == [listed]


@pytest.mark.parametrize(
    "own",
    [
        {"name": "clock__now", "input_schema": {}},
        {"type": "function", "function": {"name": "clock__now"}},
        {"type": "function", "name": "clock__now"},
        {"type": "custom", "custom": {"name": "clock__now"}},
        {"type": "web_search_20250305", "name": "clock__now"},
    ],
)
def test_another_tool_of_the_same_name_is_refused(own: dict[str, Any]) -> None:
    added = added_tools([CLOCK], Form.CHAT)
    with pytest.raises(InvalidError, match=r"'clock__now', which Toolbus adds too. Rename it"):
        add_tools({"tools": [own]}, added)
    with pytest.raises(InvalidError, match="which Toolbus adds too"):
        with_tools(b'{"tools":[]}', json.dumps([own]).encode(), added)


def test_a_name_that_models_cannot_use_is_shortened_and_mapped_to_its_tool() -> None:
    added = added_tools([LONG, CLOCK, {"name": "süd.x"}], Form.RESPONSES)
    assert set(added.names.values()) == {LONG["name"], "clock__now", "süd.x"}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in added.names)
    assert added.names["clock__now"] == "clock__now"


def test_a_tool_without_parameters_has_an_empty_list_of_properties() -> None:
    entry = json.loads(added_tools([LONG], Form.CHAT).encoded)
    assert entry["function"]["parameters"] == {"type": "object", "properties": {}}
    assert LONG["inputSchema"] == {"type": "object"}


def test_too_many_tools_are_refused_in_favour_of_code_mode_and_search() -> None:
    limits = InjectionLimits(tools=2)
    tools = [{**CLOCK, "name": f"clock__{number}"} for number in range(3)]
    with pytest.raises(InvalidError, match=r"3 tools, and at most 2 .*inject: code.*search"):
        added_tools(tools, Form.CHAT, limits)
    added = added_tools(tools[:2], Form.CHAT, limits)
    with pytest.raises(InvalidError, match="would have 3 tools"):
        add_tools({"tools": [OWN]}, added)


def test_too_many_tokens_are_refused() -> None:
    added = added_tools([CLOCK], Form.CHAT)
    exact = InjectionLimits(tokens=added.tokens)
    assert added_tools([CLOCK], Form.CHAT, exact).tokens == added.tokens
    with pytest.raises(InvalidError, match=f"about {added.tokens} tokens"):
        added_tools([CLOCK], Form.CHAT, InjectionLimits(tokens=added.tokens - 1))


def test_no_tools_leave_the_body_unchanged() -> None:
    added = added_tools([], Form.CHAT)
    assert with_tools(b'{"model":"m"}', None, added) == (b'{"model":"m"}', 0)
    assert with_tools(b'{"tools":null}', b"", added) == (b'{"tools":null}', 0)


@pytest.mark.parametrize("tools", [{}, "x", 1])
def test_tools_that_are_no_list_are_refused(tools: object) -> None:
    with pytest.raises(InvalidError, match="must be a list"):
        add_tools({"tools": tools}, added_tools([CLOCK], Form.CHAT))


@given(st.text(min_size=1))
def test_every_name_becomes_a_safe_name_that_stays_the_same(name: str) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", safe)
    assert safe_name(safe) == safe
    assert safe == name or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)


entries = st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)))


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=3)), entries)
def test_both_ways_of_adding_agree_for_any_body(body: dict[str, Any], own: list[Any]) -> None:
    body = {**body, "model": "m"}
    merged({**body, "tools": own}, [CLOCK, LONG], Form.CHAT)
    body.pop("tools", None)
    merged(body, [CLOCK, LONG], Form.CHAT)
