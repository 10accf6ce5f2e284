"""Forms made of schemas: each kind of field, its mistakes, and schemas that are no schemas."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_ingress.console.schema_form import MAX_FIELDS, WHOLE, fields_of, filled

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What to say."},
        "code": {"type": "string", "maxLength": 5},
        "amount": {"type": "number"},
        "count": {"type": ["integer", "null"], "default": 3},
        "loud": {"type": "boolean"},
        "mode": {"enum": ["a", 1, None]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
    },
    "required": ["text", "mode"],
}
BY_NAME = {each.name: each for each in fields_of(SCHEMA)}


def test_each_member_has_a_field_of_its_kind_and_required_ones_come_first() -> None:
    assert [each.name for each in fields_of(SCHEMA)][:2] == ["text", "mode"]
    kinds = {name: each.kind for name, each in BY_NAME.items()}
    assert kinds == {
        "text": "lines", "code": "text", "amount": "number", "count": "integer",
        "loud": "boolean", "mode": "choice", "tags": "json", "more": "json",
    }  # fmt: skip
    assert (BY_NAME["count"].value, BY_NAME["mode"].choices) == ("3", ('"a"', "1", "null"))
    assert BY_NAME["text"].description == "What to say."


def values(**given: str) -> dict[str, str]:
    return {BY_NAME[name].id: value for name, value in given.items()}


def test_a_filled_form_becomes_arguments_of_the_right_types() -> None:
    form = values(
        text="hi", mode="1", amount="1.5", count="2", loud="true", tags='["x"]', more='{"a": {}}'
    )
    fields, arguments = filled(fields_of(SCHEMA), form)
    assert not any(each.error for each in fields)
    assert arguments == {
        "text": "hi", "mode": 1, "amount": 1.5, "count": 2, "loud": True, "tags": ["x"],
        "more": {"a": {}},
    }  # fmt: skip


def test_what_is_left_empty_is_not_sent() -> None:
    _, arguments = filled(fields_of(SCHEMA), values(text="hi", mode='"a"'))
    assert arguments == {"text": "hi", "mode": "a"}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("text", "", "This field is required."),
        ("mode", "2", "Choose one of the listed values."),
        ("amount", "much", "Enter a number."),
        ("amount", "true", "Enter a number, such as 1.5."),
        ("count", "1.5", "Enter a whole number, such as 3."),
        ("loud", "1", "Choose yes or no."),
        ("tags", "[", "Enter valid JSON."),
        ("more", '{"a": 1, "a": 2}', "Enter valid JSON."),
    ],
)
def test_a_mistake_is_named_at_its_field(name: str, text: str, error: str) -> None:
    fields, _ = filled(fields_of(SCHEMA), values(**{"text": "hi", "mode": "1", name: text}))
    assert {each.name: each.error for each in fields if each.error} == {name: error}
    assert {each.name: each.value for each in fields}[name] == text


@pytest.mark.parametrize(
    "schema",
    [None, [], "x", {}, {"properties": 1}, {"properties": {f"p{n}": {} for n in range(99)}}],
)
def test_other_schemas_have_one_field_of_json(schema: Any) -> None:
    (field,) = fields_of(schema)
    assert (field.id, field.kind) == (WHOLE, "json")
    assert filled([field], {WHOLE: '{"a": 1}'})[1] == {"a": 1}
    assert filled([field], {WHOLE: "[]"})[0][0].error.startswith("Enter a JSON object")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["type", "enum", "default", "description", "maxLength"]), anything
)


@given(
    st.dictionaries(st.text(max_size=8), members | anything, max_size=5),
    anything,
    st.text(max_size=20),
)
def test_no_schema_and_no_value_breaks_the_form(
    properties: dict[str, Any], required: Any, text: str
) -> None:
    fields = fields_of({"properties": properties, "required": required})
    assert len(fields) <= MAX_FIELDS
    shown, _ = filled(fields, {each.id: text for each in fields})
    assert len(shown) == len(fields)
