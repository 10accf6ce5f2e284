"""The OpenAPI 3.1 document, generated from the operations table and its models."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from toolbus_common import VERSION
from toolbus_common.admin_api.models import Failure, Welcome
from toolbus_common.admin_api.operations import NAME, OPERATIONS, Operation
from toolbus_common.admin_api.roles import ROLES, who_may
from toolbus_common.config import Configuration
from toolbus_ingress.admin_api.request import JSON, MATCH, YAML, parameter_schema

_REF = "#/components/schemas/{model}"
_REASONS = {
    400: "The request does not match this description.",
    401: "No valid admin key or access token was sent.",
    403: "The role does not allow the operation, or the entry may not be configured over HTTP.",
    404: "No entry has this name.",
    408: "The body was not sent in time.",
    409: "The name already exists, or concurrent writes kept conflicting.",
    412: "The revision in If-Match is not the current one.",
    413: "The body is too large.",
    415: "The content type of the body is not supported.",
    422: "The configuration is invalid; `errors` lists the locations and reasons.",
    428: "If-Match is missing.",
    431: "The headers are too large.",
    503: "A part of Toolbus is not available; nothing was changed.",
}


@cache
def document() -> bytes:
    """Return the encoded document; it is generated on first use."""
    models = _models()
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, model in models.items()],
        ref_template=_REF,
    )
    named = {name: schema for (name, _), schema in schemas.items()}
    openapi = {
        "openapi": "3.1.0",
        "info": {
            "title": "Toolbus administration",
            "version": VERSION,
            "description": f"Every request carries an admin key, or the access token of a person "
            f"whose access rule has a role: one of {', '.join(ROLES)}.",
        },
        "security": [{"admin": []}],
        "paths": {**_public_paths(named), **_paths(named)},
        "components": {
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
            "schemas": _closed(definitions.get("$defs", {})),
        },
    }
    return json.dumps(openapi, ensure_ascii=False).encode()


def statuses(operation: Operation) -> list[int]:
    """Return the HTTP statuses of an operation's errors."""
    found = {400, 401, 431, 503}
    if operation.right is not None:
        found.add(403)
    if "{" in operation.path:
        found.add(404)
    if operation.changes:
        found |= {409, 422}
    if operation.wants is not None:
        found |= {408, 413, 415}
    if operation.match:
        found.add(412)
    if operation.must_match:
        found.add(428)
    return sorted(found)


def _models() -> dict[str, Any]:
    models: dict[str, Any] = {"failure": Failure, "welcome": Welcome, "written": Configuration}
    for operation in OPERATIONS.values():
        if operation.answers is not None:
            models[f"{operation.id}.answers"] = operation.answers
        if operation.wants is not None:
            models[f"{operation.id}.wants"] = operation.wants
    return models


def _closed(schema: Any) -> Any:
    """Return the schema without additional properties where names must match a pattern.

    Pydantic omits this restriction.
    """
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if "patternProperties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _public_paths(named: dict[str, Any]) -> dict[str, Any]:
    welcome = {
        "description": "Links to the documentation.",
        "content": {JSON: {"schema": named["welcome"]}},
    }
    itself = {
        "description": "The OpenAPI document.",
        "content": {JSON: {"schema": {"type": "object"}}},
    }
    return {
        "/api": _public_operation("welcome", "Return links to the documentation.", welcome),
        "/api/openapi.json": _public_operation("describe", "Return this OpenAPI document.", itself),
    }


def _public_operation(name: str, summary: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "security": [],
            "responses": {"200": answer},
        }
    }


def _paths(named: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS.values():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, named
        )
    return paths


def _operation(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    roles = who_may(operation.right) if operation.right else list(ROLES)
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.says,
        "description": f"For the roles {', '.join(roles)}.",
        "tags": [operation.path.split("/")[3]],
        "responses": _responses(operation, named),
    }
    parameters = list(_parameters(operation))
    if parameters:
        described["parameters"] = parameters
    if operation.wants is not None:
        schema = {"schema": _closed(named[f"{operation.id}.wants"])}
        content = {JSON: schema}
        if operation.takes_yaml:
            content[YAML] = {"schema": {"type": "string"}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    if "{" in operation.path:
        schema: dict[str, Any] = {"type": "string", "pattern": operation.named}
        if operation.named == NAME:
            schema["maxLength"] = 64
        yield {"name": "name", "in": "path", "required": True, "schema": schema}
    for name in operation.parameters:
        schema = parameter_schema(name)
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    if operation.match:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": operation.must_match and not operation.parameters,
            "description": 'The expected revision, such as "17", or * for any.',
            "schema": {"type": "string", "pattern": MATCH},
        }


def _responses(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    failure = {JSON: {"schema": named["failure"]}}
    responses: dict[str, Any] = {str(operation.status): _success(operation, named)}
    if operation.does == "put_entry":
        responses["201"] = _success(operation, named)
    for status in statuses(operation):
        responses[str(status)] = {"description": _REASONS[status], "content": failure}
    return responses


def _success(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    if operation.answers is None:
        return {"description": "Done."}
    content = {JSON: {"schema": _closed(named[f"{operation.id}.answers"])}}
    if "format" in operation.parameters:
        content[YAML] = {"schema": named["written"]}
    return {"description": "Done." if operation.changes else "The result.", "content": content}
