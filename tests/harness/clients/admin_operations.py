"""Operations of the administration API, from its OpenAPI document."""

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from toolbus_ingress.live.stream import PATH as LIVE
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest_application import build


@dataclass(frozen=True)
class AdminOperation:
    """An operation below `/api/v1`. `roles` have permission for it."""

    id: str
    method: str
    path: str
    roles: tuple[str, ...]
    has_body: bool


@cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of ingress."""
    return build(cast("Endpoint", None)).openapi()


@cache
def admin_operations() -> tuple[AdminOperation, ...]:
    """Return all operations but the endless one, in the order of the document."""
    return tuple(
        AdminOperation(
            operation["operationId"],
            method.upper(),
            path,
            tuple(operation["description"].removeprefix("For the roles ")[:-1].split(", ")),
            "requestBody" in operation,
        )
        for path, methods in openapi_document()["paths"].items()
        if path.startswith("/api/v1/") and path != LIVE
        for method, operation in methods.items()
    )
