"""The full documentation of one tool, as a model reads it when a stub is not enough."""

import json
from typing import Any

from toolbus_codemode.files import stub
from toolbus_codemode.shelf import Tool
from toolbus_codemode.stubs import ordered, properties, required, type_of

LONGEST_SCHEMA = 16_000


def manual(tool: Tool) -> str:
    """Signature, description, every parameter, what comes back, and an example."""
    parts = [stub(tool, qualified=True), tool.description]
    parameters = [_parameter(name, each) for name, each in properties(tool.schema).items()]
    if parameters:
        parts.append("Parameters:\n" + "\n".join(parameters))
    output = tool.definition.get("outputSchema")
    if output:
        parts.append(f"Returns {type_of(output)}\nOutput schema: {_bounded(output)}")
    else:
        parts.append("Returns the structured result, else the text (parsed when it is JSON).")
    parts.append(f"Example:\nresult = {example(tool)}")
    return "\n\n".join(part for part in parts if part)


def example(tool: Tool) -> str:
    """A call with a plausible value for everything required."""
    known, needed = properties(tool.schema), required(tool.schema)
    given = [f"{name}={_sample(known[name])}" for name in ordered(tool.schema) if name in needed]
    return f"{tool.path}({', '.join(given)})"


def _parameter(name: str, schema: Any) -> str:
    said = " ".join(str(schema.get("description", "")).split()) if isinstance(schema, dict) else ""
    return f"- {name}: {type_of(schema)}" + (f": {said}" if said else "")


def _sample(schema: Any) -> str:
    if not isinstance(schema, dict):
        return '"…"'
    for source in ("examples", "enum"):
        if isinstance(schema.get(source), list) and schema[source]:
            return _python(schema[source][0])
    if "default" in schema:
        return _python(schema["default"])
    samples = {"integer": "1", "number": "1.0", "boolean": "True", "array": "[]", "object": "{}"}
    return samples.get(str(schema.get("type")), '"…"')


def _python(value: Any) -> str:
    return repr(value) if not isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bounded(schema: Any) -> str:
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= LONGEST_SCHEMA else text[:LONGEST_SCHEMA] + "…"
