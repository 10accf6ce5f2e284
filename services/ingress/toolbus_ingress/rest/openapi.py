"""Parts of the OpenAPI document that FastAPI does not generate."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from toolbus_ingress.rest.models import Problem
from toolbus_ingress.rest.problems import MEDIA_TYPE

JSON, YAML = "application/json", "application/yaml"
_REF = "#/components/schemas/{model}"
_OWN_ERRORS = ("HTTPValidationError", "ValidationError")
_REASONS = {
    400: "The request does not match this description.",
    401: "No valid credential was sent.",
    402: "The budget is used up.",
    403: "The credential does not permit this.",
    404: "No entry has this name.",
    406: "The Accept header excludes JSON.",
    408: "The body was not sent in time.",
    409: "The name already exists, or another request conflicts with this one.",
    410: "The stored outcome of the first request is not available.",
    412: "The revision in If-Match is not the current one.",
    413: "The body is too large.",
    415: "The content type or encoding of the body is not supported.",
    422: "The values contradict each other or the current state; `errors` lists the locations.",
    428: "If-Match is missing.",
    429: "Too many calls were made. `Retry-After` or `data` contains the time to wait.",
    431: "The headers are too large.",
    502: "The server of the tool failed, or the outcome is not known.",
    503: "A part of Toolbus is not available; nothing was changed.",
    504: "The server of the tool did not answer in time.",
}


def problems(*statuses: int, **reasons: str) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of an operation's problem responses.

    `reasons` replace a status' usual reason: `problems(404, on_404="No such approval.")`.
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {
        status: {"description": reasons.get(f"on_{status}", _REASONS[status]), "content": content}
        for status in sorted(statuses)
    }


def request_body(schema: Mapping[str, Any], *others: str, required: bool = True) -> dict[str, Any]:
    """Return the description of a JSON body.

    `others` are further media types, which are sent as text.
    """
    content: dict[str, Any] = {JSON: {"schema": schema}}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in others}
    return {"required": required, "content": content}


def schemas_of(models: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of each model by its key, and the shared definitions by their names."""
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, model in models.items()],
        ref_template=_REF,
    )
    return {name: schema for (name, _), schema in schemas.items()}, definitions.get("$defs", {})


def closed(schema: Any) -> Any:
    """Return a schema in which objects with `patternProperties` forbid other properties.

    Pydantic omits this restriction.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if "patternProperties" in found:
        found.setdefault("additionalProperties", False)
    return found


def tidy(document: dict[str, Any]) -> None:
    """Replace generated texts with sentences for people, and remove FastAPI's error schemas.

    The first paragraph of a path function's docstring becomes the summary, and the rest becomes the
    description.
    """
    for name in _OWN_ERRORS:
        document["components"]["schemas"].pop(name, None)
    for methods in document["paths"].values():
        for method, operation in methods.items():
            _tidy_operation(method, operation)


def _tidy_operation(method: str, operation: dict[str, Any]) -> None:
    summary, _, more = operation.pop("description", "").partition("\n\n")
    operation["summary"] = summary or operation["summary"]
    if more:
        operation["description"] = more
    responses = operation["responses"]
    if any(name in str(responses.get("422")) for name in _OWN_ERRORS):
        del responses["422"]
    for response in responses.values():
        if response["description"] == "Successful Response":
            response["description"] = "The result." if method == "get" else "Done."
    for parameter in operation.get("parameters", ()):
        if parameter["schema"].get("default") == "":
            del parameter["schema"]["default"]  # a missing parameter differs from an empty one
