"""OpenAPI document of the tests' REST server: a small pet shop."""

from typing import Any

STRING = {"type": "string"}
PET = {"$ref": "#/components/schemas/Pet"}
PET_ID = {"name": "petId", "in": "path", "required": True, "schema": STRING}


def answer(schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    """Return the responses of an operation, with one success response."""
    return {"200": {"description": "It.", "content": {media: {"schema": schema}}}}


def query(name: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a query parameter."""
    return {"name": name, "in": "query", "schema": schema, **more}


def content(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a required request body."""
    return {"required": True, "content": {media: {"schema": schema}}}


def operation(name: str, **fields: Any) -> dict[str, Any]:
    """Return an operation that returns 204. `fields` override its fields."""
    return {"operationId": name, "responses": {"204": {"description": "Done."}}, **fields}


PETS = {
    "get": operation(
        "listPets",
        summary="List pets",
        tags=["pets"],
        parameters=[
            query("limit", {"type": "integer", "maximum": 100}),
            query("tags", {"type": "array", "items": STRING}),
            query("filter", {"type": "object"}, style="deepObject", explode=True),
            {"name": "X-Trace", "in": "header", "schema": STRING},
        ],
        responses=answer({"type": "array", "items": PET}),
        security=[{"token": []}],
    ),
    "post": operation(
        "createPet",
        tags=["pets"],
        requestBody=content("application/json", PET),
        responses=answer(PET),
        security=[{"key": []}],
    ),
}
PET_ITEM = {
    "parameters": [PET_ID],
    "get": operation("getPet", tags=["pets"], responses=answer(PET)),
    "head": operation("lookForPet"),
    "delete": operation("deletePet", tags=["pets", "danger"]),
}
PHOTO = {
    "parameters": [PET_ID],
    "get": operation("getPhoto", responses=answer({}, "image/png")),
    "post": operation(
        "uploadPhoto",
        requestBody=content(
            "multipart/form-data",
            {
                "type": "object",
                "required": ["photo"],
                "properties": {
                    "photo": {"type": "string", "format": "binary"},
                    "caption": STRING,
                    "about": {"type": "object"},
                },
            },
        ),
        responses=answer({"type": "object"}),
    ),
}
FORM = {"type": "object", "properties": {"user": STRING, "roles": {"type": "array"}}}


def document() -> dict[str, Any]:
    """Return the whole document."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "Pets", "version": "1", "description": "A shop for pets."},
        "servers": [{"url": "/api/v1"}],
        "paths": {
            "/pets": PETS,
            "/pets/{petId}": PET_ITEM,
            "/pets/{petId}/photo": PHOTO,
            "/login": {
                "post": operation(
                    "logIn", requestBody=content("application/x-www-form-urlencoded", FORM)
                )
            },
            "/fail/{status}": {
                "get": operation(
                    "fail",
                    parameters=[
                        {"name": "status", "in": "path", "schema": {"type": "integer"}},
                        query("text", STRING),
                    ],
                    security=[{"token": []}],
                )
            },
            "/moved": {"get": operation("moved", security=[{"token": []}])},
            "/away": {
                "get": operation("away", parameters=[query("to", STRING)], security=[{"token": []}])
            },
            "/large": {"get": operation("large", parameters=[query("size", {"type": "integer"})])},
            "/indiscreet": {
                "get": operation(
                    "indiscreet",
                    parameters=[query("size", {"type": "integer"})],
                    security=[{"token": []}],
                )
            },
            "/slow": {"get": operation("slow")},
            "/broken": {
                "post": operation(
                    "broken", requestBody=content("application/json", {"$ref": "other.yaml#/X"})
                )
            },
        },
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "query", "name": "api_key"},
            },
            "schemas": {
                "Pet": {
                    "type": "object",
                    "required": ["id", "name"],
                    "properties": {
                        "id": {"type": "integer", "readOnly": True},
                        "name": STRING,
                        "tag": {"type": "string", "nullable": True},
                        "parent": PET,
                    },
                }
            },
        },
    }
