"""Definitions and results of careless servers, grouped by Toolbus's reaction.

`SHOWN` are listed, and repaired if strict clients need it. `HELD` are quarantined.
"""

from typing import Any

OBJECT: dict[str, Any] = {"type": "object"}


def tool(**members: Any) -> dict[str, Any]:
    """Return the definition of a tool without its name."""
    return {"inputSchema": OBJECT, **members}


def output(schema: Any) -> dict[str, Any]:
    """Return a tool with an output schema."""
    return tool(outputSchema={**OBJECT, "properties": {"x": schema}})


def argument(**members: Any) -> dict[str, Any]:
    """Return a prompt with one argument."""
    return {"arguments": [{"name": "a", **members}]}


TOOLS_SHOWN: dict[str, dict[str, Any]] = {
    "empty_schema": {"inputSchema": {}},
    "schema_is_a_list": {"inputSchema": []},
    "type_null": {"inputSchema": {"type": None, "properties": {"a": {"type": "string"}}}},
    "type_in_a_list": {"inputSchema": {"type": ["object", "null"]}},
    "required_null": {"inputSchema": {**OBJECT, "required": None}},
    "required_object": {"inputSchema": {**OBJECT, "required": {}}},
    "properties_null": {"inputSchema": {**OBJECT, "properties": None}},
    "properties_list": {"inputSchema": {**OBJECT, "properties": []}},
    "property_true": {"inputSchema": {**OBJECT, "properties": {"a": True}}},
    "property_false": {"inputSchema": {**OBJECT, "properties": {"a": False}}},
    "property_null": {"inputSchema": {**OBJECT, "properties": {"a": None}}},
    "description_null": tool(description=None),
    "title_null": tool(title=None),
    "title_number": tool(title=5),
    "annotations_null": tool(annotations=None),
    "annotations_text": tool(annotations="read only"),
    "hint_text": tool(annotations={"readOnlyHint": "true", "title": None}),
    "hint_number": tool(annotations={"destructiveHint": 1}),
    "icons_null": tool(icons=None),
    "icons_object": tool(icons={"src": "https://x.example/i.png"}),
    "icons_texts": tool(icons=["https://x.example/i.png"]),
    "icons_without_src": tool(icons=[{"mimeType": "image/png"}, {"src": "data:,x"}]),
    "icon_sizes_text": tool(icons=[{"src": "data:,x", "sizes": "48x48", "theme": "blue"}]),
    "meta_null": tool(_meta=None),
    "meta_list": tool(_meta=["a"]),
    "execution_null": tool(execution=None),
    "execution_odd": tool(execution={"taskSupport": "maybe"}),
    "output_null": tool(outputSchema=None),
    "output_text": tool(outputSchema="object"),
    "output_required_null": tool(outputSchema={**OBJECT, "required": None}),
    "output_pattern": output({"type": "string", "pattern": "(?P<year>\\d+)\\Z"}),
    "output_pattern_braces": output({"type": "string", "pattern": "a{,3}"}),
    "output_dangling": output({"$ref": "#/$defs/missing"}),
    "output_reaching_out": output({"$ref": "other.json#/a"}),
    "output_type": output({"type": "text"}),
    "output_enum": output({"enum": "a"}),
}
TOOLS_HELD: dict[str, dict[str, Any]] = {
    "no_schema": {},
    "schema_null": {"inputSchema": None},
    "schema_text": {"inputSchema": "object"},
    "schema_false": {"inputSchema": False},
    "type_string": {"inputSchema": {"type": "string"}},
    "required_true": {"inputSchema": {**OBJECT, "required": True}},
    "required_numbers": {"inputSchema": {**OBJECT, "required": [1]}},
    "properties_text": {"inputSchema": {**OBJECT, "properties": "a"}},
    "property_text": {"inputSchema": {**OBJECT, "properties": {"a": "string"}}},
    "description_number": tool(description=5),
    "description_list": tool(description=["a"]),
}
PROMPTS_SHOWN: dict[str, dict[str, Any]] = {
    "arguments_null": {"arguments": None},
    "arguments_object": {"arguments": {}},
    "argument_nulls": argument(description=None, required=None),
    "prompt_description_null": {"description": None},
    "prompt_icons": {"icons": "none", "_meta": []},
}
PROMPTS_HELD: dict[str, dict[str, Any]] = {
    "arguments_text": {"arguments": "a"},
    "argument_without_name": {"arguments": [{"description": "x"}]},
    "argument_null": {"arguments": [None]},
    "argument_required_text": argument(required="yes"),
}
RESOURCES_SHOWN: dict[str, dict[str, Any]] = {
    "odd://no-name": {},
    "odd://name-null": {"name": None},
    "odd://size": {"name": "size", "size": "12", "mimeType": None},
    "odd://annotations": {
        "name": "a",
        "annotations": {"audience": "user", "priority": 7, "lastModified": "yesterday"},
    },
    "odd://meta": {"name": "m", "_meta": [1], "icons": [None], "title": 7},
}
RESOURCES_HELD: dict[str, dict[str, Any]] = {
    "notes.txt": {"name": "no scheme"},
    "odd://name-number": {"name": 5},
    "odd://description": {"name": "d", "description": {}},
}
TEMPLATES_SHOWN: dict[str, dict[str, Any]] = {
    "odd://t/{a}": {},
    "odd://u/{a}": {"name": "u", "annotations": [], "mimeType": 1},
}
GOOD = ("good", "also_good")
TEXT: dict[str, Any] = {"type": "text", "text": "read"}


def part(**members: Any) -> dict[str, Any]:
    """Return a result with one part."""
    return {"content": [members]}


RESULTS_READ: dict[str, dict[str, Any]] = {
    "content_missing": {},
    "content_null": {"content": None},
    "is_error_null": {"content": [TEXT], "isError": None, "_meta": None},
    "part_nulls": part(**TEXT, annotations=None, _meta=None),
    "part_hints": part(**TEXT, annotations={"audience": "user", "priority": 9}),
    "image_url_safe": part(type="image", data="a-b_", mimeType="image/png"),
    "link_without_name": part(type="resource_link", uri="odd://good", description=None),
    "structured_null": {"content": [TEXT], "structuredContent": None},
}
RESULTS_FAULTY: dict[str, dict[str, Any]] = {
    "text_missing": part(type="text"),
    "text_number": part(type="text", text=5),
    "part_unknown": part(type="video", data="x"),
    "part_text": {"content": ["text"]},
    "content_text": {"content": "text"},
    "image_broken": part(type="image", data="%", mimeType="image/png"),
    "image_of_no_type": part(type="image", data="aaaa"),
    "resource_empty": part(type="resource", resource={"uri": "odd://x"}),
}
RESULTS: dict[str, dict[str, Any]] = {
    **RESULTS_READ,
    **RESULTS_FAULTY,
    "arguments_null": {"messages": [{"role": "user", "content": TEXT}], "description": None},
    "arguments_object": {"messages": [{"role": "system", "content": TEXT}]},
    "odd://size": {"contents": [{"text": "read", "mimeType": None}]},
    "odd://good": {"contents": [{"uri": "odd://good"}]},
    "odd": {"completion": {"values": ["read"], "total": None}},
    "odder": {"completion": {"values": [1]}},
}
CASES = (
    *TOOLS_SHOWN, *TOOLS_HELD, *PROMPTS_SHOWN, *PROMPTS_HELD, *RESOURCES_SHOWN, *RESOURCES_HELD,
    *TEMPLATES_SHOWN,
)  # fmt: skip


def named(key: str, definitions: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return definitions with their names, in the form of a list."""
    return [{key: name, **members} for name, members in definitions.items()]


LISTS: dict[str, list[Any]] = {
    "tools": [
        *(
            {"name": each, "inputSchema": OBJECT}
            for each in (*GOOD, *RESULTS_READ, *RESULTS_FAULTY)
        ),
        *named("name", TOOLS_SHOWN | TOOLS_HELD),
        None,
        7,
        {"name": 7, "inputSchema": OBJECT},
    ],
    "prompts": [*({"name": name} for name in GOOD), *named("name", PROMPTS_SHOWN | PROMPTS_HELD)],
    "resources": [
        {"uri": "odd://good", "name": "good"},
        *named("uri", RESOURCES_SHOWN | RESOURCES_HELD),
    ],
    "resourceTemplates": named("uriTemplate", TEMPLATES_SHOWN),
}
