"""The OpenAPI 3.1 document, written from the table and the models that serve the requests."""

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
from toolbus_ingress.admin_api.request import JSON, MATCH, YAML, schema_of

_REF = "#/components/schemas/{model}"
_REASONS = {
    400: "What is sent does not have the form described here.",
    401: "No live admin key was sent, and no live token for this.",
    403: "The role does not go so far, or what is declared may not be declared over HTTP.",
    404: "Nothing has this name.",
    408: "The body took too long.",
    409: "The name is taken, or others are writing all the time.",
    412: "The revision in If-Match is no longer the one that is there.",
    413: "The body is too large.",
    415: "The body is written in a way nobody here reads.",
    422: "It has the form, but does not hold together; faults say where and why.",
    428: "If-Match is missing.",
    431: "The headers are too large.",
    503: "A part of Toolbus is down; nothing was changed.",
}


@cache
def document() -> bytes:
    """The document; made when first asked for."""
    models = _models()
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, model in models.items()],
        ref_template=_REF,
    )
    named = {name: schema for (name, _), schema in schemas.items()}
    told = {
        "openapi": "3.1.0",
        "info": {
            "title": "Toolbus administration",
            "version": VERSION,
            "description": f"Every request carries an admin key, or the access token of somebody "
            f"to whom access gives a role; that is one of {', '.join(ROLES)}.",
        },
        "security": [{"admin": []}],
        "paths": {**_unguarded(named), **_paths(named)},
        "components": {
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
            "schemas": _closed(definitions.get("$defs", {})),
        },
    }
    return json.dumps(told, ensure_ascii=False).encode()


def statuses(operation: Operation) -> list[int]:
    """The failures an operation may end in."""
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
    """Where names must fit a pattern, no others are taken: pydantic leaves that unsaid."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _closed(value) for name, value in schema.items()}
    if "patternProperties" in told:
        told.setdefault("additionalProperties", False)
    return told


def _unguarded(named: dict[str, Any]) -> dict[str, Any]:
    welcome = {"description": "Where to look.", "content": {JSON: {"schema": named["welcome"]}}}
    told = {"description": "This document.", "content": {JSON: {"schema": {"type": "object"}}}}
    return {
        "/api": _bare("welcome", "Where the API is described.", welcome),
        "/api/openapi.json": _bare("describe", "This document.", told),
    }


def _bare(name: str, says: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {"operationId": name, "summary": says, "security": [], "responses": {"200": answer}}
    }


def _paths(named: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS.values():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _told(operation, named)
    return paths


def _told(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    roles = who_may(operation.right) if operation.right else list(ROLES)
    told: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.says,
        "description": f"For the roles {', '.join(roles)}.",
        "tags": [operation.path.split("/")[3]],
        "responses": _responses(operation, named),
    }
    parameters = list(_parameters(operation))
    if parameters:
        told["parameters"] = parameters
    if operation.wants is not None:
        schema = {"schema": _closed(named[f"{operation.id}.wants"])}
        content = {JSON: schema}
        if operation.takes_yaml:
            content[YAML] = {"schema": {"type": "string"}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    if "{" in operation.path:
        schema: dict[str, Any] = {"type": "string", "pattern": operation.named}
        if operation.named == NAME:
            schema["maxLength"] = 64
        yield {"name": "name", "in": "path", "required": True, "schema": schema}
    for name in operation.parameters:
        schema = schema_of(name)
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    if operation.match:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": operation.must_match and not operation.parameters,
            "description": 'The revision this depends on, such as "17", or * for any.',
            "schema": {"type": "string", "pattern": MATCH},
        }


def _responses(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    failure = {JSON: {"schema": named["failure"]}}
    told: dict[str, Any] = {str(operation.status): _success(operation, named)}
    if operation.does == "put_entry":
        told["201"] = _success(operation, named)
    for status in statuses(operation):
        told[str(status)] = {"description": _REASONS[status], "content": failure}
    return told


def _success(operation: Operation, named: dict[str, Any]) -> dict[str, Any]:
    if operation.answers is None:
        return {"description": "Done."}
    content = {JSON: {"schema": _closed(named[f"{operation.id}.answers"])}}
    if "format" in operation.parameters:
        content[YAML] = {"schema": named["written"]}
    return {"description": "Done." if operation.changes else "Here it is.", "content": content}
