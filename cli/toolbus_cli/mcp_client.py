"""Client that sends single requests to the MCP endpoint."""

import json
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_cli.http_client import Response, send

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def request(endpoint: str, key: str, method: str, params: dict[str, Any], seconds: float) -> Any:
    """Send one request; return its result. Raises `CommandError` with the endpoint's error."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    response = _post(endpoint, key, json.dumps(request).encode(), seconds)
    streamed = "event-stream" in response.headers.get("content-type", "")
    try:
        answer = json.loads(_last_event(response.body) if streamed else response.body)
    except ValueError as error:
        raise CommandError(
            f"{endpoint} returned {response.status} without JSON; "
            "check that it is a Toolbus endpoint."
        ) from error
    if "error" in answer:
        raise CommandError(_error_text(answer["error"]))
    return answer["result"]


def _post(endpoint: str, key: str, body: bytes, seconds: float) -> Response:
    headers = {**HEADERS, "Authorization": f"Bearer {key}"}
    try:
        return send("POST", endpoint, body=body, headers=headers, seconds=seconds)
    except TimeoutError as error:
        raise CommandError(
            f"{endpoint} did not reply within {seconds:g} s; the call may have been executed, so "
            "check the audit log before you repeat it."
        ) from error
    except OSError as error:
        raise CommandError(
            f"Cannot connect to {endpoint} ({error}); check that Toolbus is running."
        ) from error


def _last_event(body: bytes) -> str:
    lines = body.decode("utf-8", "replace").splitlines()
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return data[-1] if data else ""


def _error_text(error: dict[str, Any]) -> str:
    data = error.get("data")
    details = [f"{name} {value}" for name, value in data.items()] if isinstance(data, dict) else []
    return f"{error.get('message')}" + (f" ({', '.join(details)})" if details else "")
