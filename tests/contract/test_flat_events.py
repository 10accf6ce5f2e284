"""The events in which ClickHouse searches for a field instead of parsing the event."""

import pytest

from toolbus_common.contracts import CallAllowed, CallCompleted, Event, ModelUsed

FLAT = {"string", "integer", "number", "boolean"}


@pytest.mark.parametrize("kind", [CallAllowed, CallCompleted, ModelUsed])
def test_an_event_in_which_audit_searches_for_fields_has_no_nested_objects(
    kind: type[Event],
) -> None:
    """Migrations 17 and 18 would find a field of the same name in a nested object."""
    for name, schema in kind.model_json_schema()["properties"].items():
        of_items = schema.get("items", {"type": "string"}).get("type")
        assert schema.get("type") in FLAT | {"array"}, name
        assert of_items in FLAT, name


def test_an_event_is_encoded_without_spaces_between_name_and_value() -> None:
    event = CallAllowed(
        id="i", at=1.0, customer="a", call_id="c", server="s", tool="t", arguments_bytes=5
    )
    assert b'"arguments_bytes":5' in event.encode()
