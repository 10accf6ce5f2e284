"""The operations that return the OpenAPI document, and its part about administration."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.routing import iter_route_contexts
from starlette.responses import Response

from toolbus_common.admin_api.models import Welcome
from toolbus_common.admin_api.roles import ROLES, who_may
from toolbus_ingress.admin_api.policy_call import Performs
from toolbus_ingress.rest.application import Application, json_answer
from toolbus_ingress.rest.openapi import YAML, problems, request_body, schemas_of
from toolbus_ingress.rest.parameters import reject_unknown_parameters

WELCOME = {
    "openapi": "/api/openapi.json",
    "documentation": "Send an admin key as Authorization: Bearer; 'toolbus admins create' creates "
    "one. People whose access rule has a role send their access token. The OpenAPI document "
    "describes every operation.",
}
router = APIRouter(
    prefix="/api",
    tags=["description"],
    dependencies=[Depends(reject_unknown_parameters)],
    responses=problems(400),
)


@router.get("", response_model=Welcome)
@router.get("/", include_in_schema=False)
async def welcome() -> Response:
    """Return links to the documentation."""
    return json_answer(msgspec.json.encode(WELCOME))


@router.get("/openapi.json", response_model=dict[str, Any])
def describe(request: Request) -> Response:  # in a thread: the first generation takes long
    """Return this OpenAPI document."""
    return json_answer(cast("Application", request.app).document)


def describe_administration(application: Application, document: dict[str, Any]) -> None:
    """Add the roles, bodies and problems of the administration's operations to the document."""
    found = list(_operations(application, document))
    models = {each["operationId"]: how.body for each, how in found if how.body is not None}
    schemas, definitions = schemas_of(models)
    document["components"]["schemas"] |= definitions
    for operation, how in found:
        if how.body is not None:
            media_types = (YAML,) if how.yaml else ()
            operation["requestBody"] = request_body(schemas[operation["operationId"]], *media_types)
        roles = who_may(how.right) if how.right else ROLES
        operation["description"] = f"For the roles {', '.join(roles)}."
        operation["responses"] |= _responses(operation, how)


def _operations(
    application: Application, document: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], Performs]]:
    """Yield each operation that policy performs, as the document describes it."""
    for route in iter_route_contexts(application.routes):
        for dependency in route.dependant.dependencies:
            if isinstance(dependency.call, Performs):
                (method,) = route.methods or ("GET",)
                yield document["paths"][route.path_format][method.lower()], dependency.call


def _responses(operation: dict[str, Any], how: Performs) -> dict[str, Any]:
    """Return the responses that FastAPI does not derive from the path function."""
    changes = how.right in ("declare", "keys", "appoint", "decide")
    named = {each["name"] for each in operation.get("parameters", ())}
    statuses = {400, 401, 431, 503}
    if how.right is not None:
        statuses.add(403)
    if "name" in named:
        statuses.add(404)
    if changes:
        statuses.add(409)
    if changes or how.right in ("purge", "audit", "hold", "erase"):
        statuses.add(422)
    if how.right == "erase":
        statuses |= {404, 409}
    if how.body is not None:
        statuses |= {408, 413, 415}
    if "If-Match" in named:
        statuses.add(412)
    if how.operation in ("apply_configuration", "restore_revision"):
        statuses.add(428)
    found: dict[str, Any] = {str(s): each for s, each in problems(*statuses).items()}
    success = operation["responses"]
    if how.operation == "put_entry":
        found["201"] = {**success["200"], "description": "Created."}
    if how.operation == "show_configuration":
        success["200"]["content"][YAML] = {"schema": {"$ref": "#/components/schemas/Configuration"}}
    return found
