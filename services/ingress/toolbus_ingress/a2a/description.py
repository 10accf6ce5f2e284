"""The description of the A2A endpoint in the OpenAPI document."""

from typing import Any

from toolbus_common.a2a.protocol import BEFORE, CURRENT
from toolbus_ingress.a2a.card import CARDS, PATH
from toolbus_ingress.rest.application import Application
from toolbus_ingress.rest.openapi import problems, request_body

_OBJECT = {"type": "object"}
_JSON = {"application/json": {"schema": _OBJECT}}
_SECURITY: list[dict[str, list[str]]] = [{"caller": []}, {"api_key": []}]


def describe_a2a(_application: Application, document: dict[str, Any]) -> None:
    """Add the operations, which FastAPI does not serve because responses can be streams."""
    for path in CARDS:
        document["paths"][path] = {"get": _card(path)}
    methods = sorted({CURRENT.send, BEFORE.send, CURRENT.stream, BEFORE.stream})
    streamed = {"text/event-stream": {"schema": {"type": "string"}}}
    document["paths"][PATH] = {
        "post": {
            "tags": ["a2a"],
            "operationId": "send_a2a_message",
            "summary": "Send a message of the A2A protocol, or ask for a task.",
            "description": f"JSON-RPC requests such as {', '.join(methods)}.",
            "security": _SECURITY,
            "requestBody": request_body(_OBJECT),
            "responses": {
                "200": {"description": "A JSON-RPC response.", "content": {**_JSON, **streamed}},
                **_failures(400, 401, 403, 406, 413, 415, 431, 503),
            },
        }
    }


def _card(path: str) -> dict[str, Any]:
    name = path.strip("/.").replace("/", "_").replace(".", "_").replace("-", "_")
    return {
        "tags": ["a2a"],
        "operationId": f"show_{name}",
        "summary": "Return the agent card; with a key, it has the skills of this key.",
        "security": [{}, *_SECURITY],
        "responses": {
            "200": {"description": "The agent card.", "content": _JSON},
            **_failures(400, 401, 403, 431, 503),
        },
    }


def _failures(*statuses: int) -> dict[str, Any]:
    """Return the descriptions of failures, which are JSON-RPC errors."""
    described = problems(*statuses).items()
    return {str(status): {**how, "content": _JSON} for status, how in described}
