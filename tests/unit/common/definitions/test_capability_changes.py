"""What a changed tool can do beyond its approved version."""

from typing import Any

from toolbus_common.definitions.capability_changes import MOST, capability_changes

REPEATED = (
    "it no longer declares that a repeated call changes nothing more (annotations.idempotentHint)"
)


def tool(*required: str, also: tuple[str, ...] = (), **annotations: bool) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in (*required, *also)}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": "a", "annotations": annotations, "inputSchema": schema}


def test_a_hint_that_is_no_longer_declared_is_named() -> None:
    safe = tool(readOnlyHint=True, destructiveHint=False, idempotentHint=True, openWorldHint=False)
    assert capability_changes(safe, tool()) == [
        "it no longer declares that it only reads (annotations.readOnlyHint)",
        "it no longer declares that it destroys nothing (annotations.destructiveHint)",
        REPEATED,
        "it no longer declares that it reaches no other systems (annotations.openWorldHint)",
    ]
    assert capability_changes(tool(), tool(destructiveHint=True)) == [
        "it declares now that it can destroy data (annotations.destructiveHint)"
    ]


def test_a_safer_or_equal_definition_has_no_changes() -> None:
    assert capability_changes(tool(), tool(readOnlyHint=True, destructiveHint=False)) == []
    assert capability_changes(tool("a"), tool("a", also=("b", "max_tokens", "pageToken"))) == []
    assert capability_changes(tool("a"), tool(also=("a",))) == []


def test_new_required_parameters_and_requests_for_secrets_are_named() -> None:
    assert capability_changes(tool(also=("b",)), tool("a", "b", "apiKey", also=("c", "token"))) == [
        "it requires a new parameter: a",
        "it requires a new parameter: apiKey; its name asks for a secret",
        "it requires a parameter: b",
        "it has a new parameter: token; its name asks for a secret",
    ]


def test_a_first_version_has_nothing_to_compare() -> None:
    assert capability_changes({}, tool("password")) == []


def test_hostile_definitions_give_short_visible_lines() -> None:
    found = capability_changes(tool(), tool(*(f"p{number}\x1b" for number in range(100))))
    assert len(found) == MOST + 1
    assert not any("\x1b" in line for line in found)
    odd: dict[str, Any] = {"annotations": [], "inputSchema": {"properties": 1, "required": [2, {}]}}
    assert capability_changes(odd, odd) == []
