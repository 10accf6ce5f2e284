"""The description of the stream of calls in the OpenAPI document."""

from typing import Any

from toolbus_common.admin_api.roles import who_may
from toolbus_ingress.live.stream import PATH
from toolbus_ingress.rest.application import Application
from toolbus_ingress.rest.openapi import problems

_PARAMETERS = {
    "key": "Only calls of keys whose names contain this text.",
    "tool": "Only calls whose `server__tool` contains this text.",
    "customer": "Only calls that this customer pays.",
    "result": "`denied` or `failed`: only these calls.",
}


def describe_live_calls(_application: Application, document: dict[str, Any]) -> None:
    """Add the operation, which FastAPI does not serve because its response does not end."""
    answers: dict[str, Any] = {
        "200": {
            "description": "Server-sent events. The data of each is a JSON object with `events`, "
            "`skipped` (the number of events that were left out) and `sampled` (whether further "
            "events were left out and not counted).",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }
    answers |= {str(each): how for each, how in problems(400, 401, 403, 431, 503).items()}
    document["paths"][PATH] = {
        "get": {
            "tags": ["live"],
            "operationId": "watch_calls",
            "summary": "Send calls as they happen, until the client disconnects.",
            "description": f"For the roles {', '.join(who_may('calls'))}.",
            "security": [{"administrator": []}],
            "parameters": [
                {"name": name, "in": "query", "description": text, "schema": _schema(name)}
                for name, text in _PARAMETERS.items()
            ],
            "responses": answers,
        }
    }


def _schema(name: str) -> dict[str, Any]:
    return {"enum": ["denied", "failed"]} if name == "result" else {"type": "string"}
