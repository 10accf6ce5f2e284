"""Validation of arguments and results by schemas that may be hostile themselves."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.services.call_runner import admitted
from toolbus_common.contracts import CatalogEntry
from toolbus_common.errors import InvalidArgumentsError, UpstreamInvalidError
from toolbus_executor.validation import Checks
from toolbus_executor.validation.messages import MAX_LENGTH
from toolbus_executor.validation.misfits import UNCHECKED
from toolbus_executor.validation.schema_cost import LARGEST_WEIGHT, UnboundedError, bounds_of
from toolbus_executor.validation.validator import CompiledSchema

STRING = {"type": "string"}
SEARCH = {
    "type": "object",
    "properties": {
        "query": STRING,
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "order": {"enum": ["newest", "oldest"]},
        "since": {"anyOf": [STRING, {"type": "null"}]},
        "tags": {"type": "array", "items": STRING, "maxItems": 3},
        "filter": {
            "type": "object",
            "properties": {"a": STRING, "b": STRING},
            "additionalProperties": False,
        },
        "shape": {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}},
                    "required": ["kind", "r"],
                },
                {"type": "string"},
            ]
        },
    },
    "required": ["query"],
}
TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": {"type": "integer"}},
}


async def checks(schema: Any, results: Any = None, mode: Any = "both") -> Checks:
    definition = {"name": "t", "inputSchema": schema}
    if results is not None:
        definition["outputSchema"] = results
    misfits = {"both": "strict", "arguments": "strict", "results": "report"}.get(mode, mode)
    made = Checks("s", misfits, mode in ("both", "results"))
    tool = CatalogEntry(name="t", definition=definition, digest="d")
    await made.learn([tool])
    return made


async def refusal(schema: Any, arguments: Any) -> str:
    """Return the message of the rejection, or `""` for valid arguments."""
    made = await checks(schema)
    assert made.unchecked == {}
    return message_of(made, arguments)


def message_of(made: Checks, arguments: Any) -> str:
    try:
        made.check_arguments(admitted("t", arguments))
    except InvalidArgumentsError as error:
        return error.reason
    return ""


async def result_error(schema: Any, result: Any) -> str:
    made = await checks({}, schema)
    try:
        made.check_result(admitted("t"), json.dumps(result).encode())
    except UpstreamInvalidError as error:
        return error.reason
    return ""


async def skip_reason(schema: Any) -> str:
    made = await checks(schema)
    made.check_arguments(admitted("t", {"x": 1}))  # it stays callable
    return made.unchecked.get("t", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "'query' is missing: give a string"),
        ({"query": 5}, "'query' must be a string; it is an integer"),
        ({"query": "q", "limit": "5"}, "'limit' must be an integer; it is a string"),
        ({"query": "q", "limit": 101}, "'limit' must be at most 100"),
        ({"query": "q", "limit": True}, "'limit' must be an integer; it is a boolean"),
        ({"query": "q", "order": "best"}, "'order' must be one of 'newest', 'oldest'"),
        ({"query": "q", "since": 1.5}, "'since' must be a string or null; it is a number"),
        ({"query": "q", "tags": ["a", None]}, "'tags[1]' must be a string; it is null"),
        ({"query": "q", "tags": ["a"] * 4}, "'tags' must have at most 3 items"),
        ({"query": "q", "filter": {"c": 1}}, "'filter' has no 'c'; known names: 'a', 'b'"),
        (
            {"query": "q", "shape": {"kind": "circle"}},
            (
                "'shape' matches none of the 2 alternatives of its schema; for the closest one, "
                "'r' is missing"
            ),
        ),
    ],
)
async def test_a_rejection_names_the_place_and_the_expected_value(
    arguments: Any, problem: str
) -> None:
    reason = await refusal(SEARCH, arguments)
    assert reason == f"Invalid arguments: {problem}. Nothing was sent; correct them and call again."


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (
            {"oneOf": [{"type": "object"}, {"required": []}]},
            "the arguments matches several alternatives of 'oneOf', but must match exactly one",
        ),
        ({"properties": {"x": {"const": 1}}}, "'x' must be 1"),
        ({"properties": {"x": {"not": {}}}}, "'x' matches a schema that 'not' excludes"),
    ],
    ids=["oneOf", "const", "not"],
)
async def test_a_rejection_explains_the_other_keywords(schema: Any, problem: str) -> None:
    reason = await refusal(schema, {"x": 2})
    assert reason == f"Invalid arguments: {problem}. Nothing was sent; correct them and call again."


class PanicException(BaseException):
    """A panic of the library, which is no `Exception`."""


@pytest.mark.parametrize("error", [ValueError("no"), RecursionError(), PanicException()])
def test_a_failure_of_the_library_leaves_the_value_unchecked(error: BaseException) -> None:
    def fail(_value: Any) -> bool:
        raise error

    validator: Any = SimpleNamespace(is_valid=fail)
    assert CompiledSchema({}, bounds_of({}), validator).misfit(b"{}", "the value") is UNCHECKED


async def test_valid_arguments_are_unchanged() -> None:
    whole = {"query": "q", "limit": 1, "since": None, "tags": [], "filter": {"a": "b"}}
    assert await refusal(SEARCH, whole) == ""
    assert await refusal(SEARCH, {"query": "q", "limit": 5.0, "unknown": 1}) == ""


async def test_null_counts_as_absent_for_optional_arguments() -> None:
    made = await checks(SEARCH)
    assert message_of(made, {"query": "x", "limit": None, "order": None}) == ""
    assert "query" in message_of(made, {"query": None})
    assert "limit" in message_of(made, {"query": "x", "limit": 0, "order": None})


async def test_at_most_three_problems_are_reported_and_the_number_of_others() -> None:
    wrong = {"query": 1, "limit": 0, "order": 1, "since": 1, "tags": 1}
    reason = await refusal(SEARCH, wrong)
    assert reason.count("must") == 3
    assert "; further errors are omitted." in reason


async def test_no_value_of_the_caller_appears_in_the_message() -> None:
    secret = "hunter2-hunter2"
    for wrong in ({"query": [secret]}, {"query": "q", "order": secret}, {"query": {secret: 1}}):
        assert secret not in await refusal(SEARCH, wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=25)
@given(arguments=st.dictionaries(st.sampled_from([*SEARCH["properties"], "other"]), JSON))
async def test_a_rejection_is_one_short_line_for_any_arguments(arguments: Any) -> None:
    reason = await refusal(SEARCH, arguments)
    assert len(reason) < MAX_LENGTH + 150
    assert reason.isprintable()


@settings(max_examples=25)
@given(schema=st.dictionaries(st.sampled_from(["type", "$ref", "items", "not", "enum"]), JSON))
async def test_no_schema_makes_the_check_raise(schema: Any) -> None:
    made = await checks(schema)
    reason = message_of(made, {"x": [1, "2"]})
    assert reason == "" or reason.startswith("Invalid arguments: ")


def expanding(levels: int) -> dict[str, Any]:
    """Return a schema whose parts refer to the next one twice: small, but endless to follow."""
    parts = {
        f"a{each}": {"allOf": [{"$ref": f"#/$defs/a{each + 1}"}] * 2} for each in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": parts | {f"a{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "http://127.0.0.1:1/schema"}, "has a reference without a target"),
        ({"$ref": "file:///etc/passwd"}, "has a reference without a target"),
        ({"properties": {"x": {"$ref": "#/$defs/none"}}}, "has a reference without a target"),
        ({"properties": {"x": {"$id": "http://a/b", "$ref": "#"}}}, "has a subschema with an $id"),
        ({"$dynamicRef": "#x"}, "has dynamic references"),
        (expanding(20), "too large after its references are resolved"),
        ({"properties": {str(each): {"pattern": "a"} for each in range(65)}}, "64 patterns"),
        ({"properties": {"x": {"pattern": "(?=a)b"}}}, "cannot be compiled"),
        ({"properties": {"x": {"pattern": "(((a{100}){100}){100})"}}}, "cannot be compiled"),
        ({"type": "objet"}, "cannot be compiled"),
        ({"$schema": "http://example.com/none", "minProperties": 1}, "cannot be compiled"),
    ],
)
async def test_an_unusable_schema_is_reported_and_its_tool_stays_callable(
    schema: Any, why: str
) -> None:
    assert why in await skip_reason(schema)


def test_the_cost_counts_a_reference_each_time_it_is_followed() -> None:
    assert bounds_of(expanding(8)).weight > 2**8
    with pytest.raises(UnboundedError):
        bounds_of(expanding(LARGEST_WEIGHT.bit_length()))


def nested(levels: int) -> Any:
    found: Any = {"value": "wrong"}
    for _ in range(levels):
        found = {"left": found, "right": {"value": 1}}
    return found


async def test_a_recursive_schema_is_checked_at_any_depth() -> None:
    assert "'left.value' must be an integer" in await refusal(TREE, nested(1))
    # A violation deep down is still found, but its place is not searched: the search would recur.
    assert "the schema does not allow" in await refusal(TREE, nested(30))
    assert await refusal(TREE, {"left": {"right": {"value": 1}}}) == ""


async def test_a_value_too_costly_to_check_passes_unchecked() -> None:
    schema = {"properties": {"x": {"items": {"allOf": [STRING] * 1000}}}}
    assert await refusal(schema, {"x": [1]}) != ""
    assert await refusal(schema, {"x": [1] * 10_000}) == ""


async def test_a_backtracking_pattern_takes_linear_time() -> None:
    schema = {"properties": {"x": {"pattern": "^(a+)+$"}}}
    assert "must match the pattern" in await refusal(schema, {"x": "a" * 50_000 + "b"})


async def test_a_definition_is_compiled_once() -> None:
    made = await checks(SEARCH)
    (first,) = made._arguments.values()
    await made.learn([CatalogEntry(name="t", definition={"inputSchema": {}}, digest="d")])
    assert next(iter(made._arguments.values())) is first
    await made.learn([])
    assert made._arguments == {}


@pytest.mark.parametrize(("mode", "refused"), [("arguments", True), ("none", False)])
async def test_only_the_configured_directions_are_validated(mode: str, *, refused: bool) -> None:
    made = await checks(SEARCH, {"required": ["x"]}, mode)
    made.check_result(admitted("t"), b'{"structuredContent":{}}')
    if refused:
        with pytest.raises(InvalidArgumentsError):
            made.check_arguments(admitted("t", {}))
    else:
        made.check_arguments(admitted("t", {}))


async def test_a_result_that_violates_its_schema_is_an_upstream_invalid_naming_the_place() -> None:
    schema = {"type": "object", "properties": {"temp": {"type": "number"}}, "required": ["temp"]}
    assert await result_error(schema, {"structuredContent": {"temp": 3.5}}) == ""
    reason = await result_error(schema, {"structuredContent": {"temp": "warm"}})
    assert "violates the outputSchema of t: 'temp' must be a number; it is a string" in reason
    assert "structuredContent is missing" in await result_error(schema, {"content": []})


async def test_each_schema_dialect_is_validated_by_its_own_rules() -> None:
    pair = [{"type": "integer"}, STRING]
    old = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"x": {"items": pair}},
    }
    new = {"properties": {"x": {"prefixItems": pair}}}
    for schema in (old, new):
        assert "'x[1]' must be a string" in await refusal(schema, {"x": [1, 2]})


async def test_a_long_value_is_not_copied_into_every_message() -> None:
    schema = {"properties": {"x": {"anyOf": [{"type": "integer"}] * 2500}}}
    assert "must be an integer" in await refusal(schema, {"x": "a"})
    reason = await refusal(schema, {"x": "a" * 1_000_000})
    assert "the schema does not allow the arguments" in reason


async def test_output_schemas_can_be_checked_for_a_guard_without_validation_of_results() -> None:
    made = Checks("docs")
    made.output_schemas = True
    definition = {"inputSchema": {}, "outputSchema": {"required": ["x"]}}
    await made.learn([CatalogEntry(name="t", definition=definition, digest="d")])
    fits = made.fits("t")
    assert fits is not None
    assert (fits(b'{"x":1}'), fits(b"{}")) == (True, False)
    assert made.fits("other") is None
    assert not made.has_result("t")
    made.check_result(admitted("t"), b'{"structuredContent":{}}')
