"""Full documentation of one tool, for a model."""

import json
from typing import Any

from toolbus_codemode.catalog.examples import example, plain_example
from toolbus_codemode.catalog.namespace import Tool
from toolbus_codemode.catalog.signatures import properties, type_of
from toolbus_codemode.catalog.stub_tree import stub

LONGEST_SCHEMA = 16_000


def manual(tool: Tool, *, plain: bool = False) -> str:
    """Return signature, description, parameters, result and an example.

    With `plain`, the text shows a call without a program.
    """
    parts = [stub(tool, tool.called if plain else tool.path), tool.description]
    parameters = [_parameter(name, each) for name, each in properties(tool.schema).items()]
    if parameters:
        parts.append("Parameters:\n" + "\n".join(parameters))
    output = tool.definition.get("outputSchema")
    if output:
        parts.append(f"Returns {type_of(output)}\nOutput schema: {_bounded(output)}")
    else:
        parts.append("Returns the structured result, else the text (parsed when it is JSON).")
    parts.append(f"Example:\n{plain_example(tool) if plain else f'result = {example(tool)}'}")
    return "\n\n".join(part for part in parts if part)


def _parameter(name: str, schema: Any) -> str:
    text = schema.get("description", "") if isinstance(schema, dict) else ""
    description = " ".join(str(text).split())
    return f"- {name}: {type_of(schema)}" + (f": {description}" if description else "")


def _bounded(schema: Any) -> str:
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= LONGEST_SCHEMA else text[:LONGEST_SCHEMA] + "…"
