"""Constants and errors of the protocol: revisions, error codes, `_meta` keys."""

import json
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

MODERN = ("2026-07-28",)
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

PREFIX = "io.modelcontextprotocol/"
VERSION = PREFIX + "protocolVersion"
CAPABILITIES = PREFIX + "clientCapabilities"
SERVER_INFO = PREFIX + "serverInfo"
LOG_LEVEL = PREFIX + "logLevel"
SUBSCRIPTION = PREFIX + "subscriptionId"
TASKS = PREFIX + "tasks"
UI = PREFIX + "ui"

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
RESOURCE_NOT_FOUND, URL_ELICITATION_REQUIRED = -32002, -32042
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022

IMPLEMENTATION = {"name": "fixture", "title": "Fixture server", "version": "1.0.0"}
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class ProtocolFamily(StrEnum):
    """Stateless since 2026-07-28, or with a handshake before."""

    MODERN = "modern"
    LEGACY = "legacy"


class RefusedError(Exception):
    """A JSON-RPC error with its HTTP status."""

    def __init__(self, code: int, message: str, data: Any = None, *, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = status

    @property
    def body(self) -> Json:
        """The member `error` of a response."""
        fields: Json = {"code": self.code, "message": str(self)}
        return fields if self.data is None else {**fields, "data": self.data}


def dump(message: Any) -> bytes:
    """Encode JSON without whitespace and line breaks, as one line of any transport."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def response(request_id: Any, result: Json) -> Json:
    """Return a successful response."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(request_id: Any, error: RefusedError) -> Json:
    """Return an error response, without an id if the request had no readable one."""
    fields: Json = {"jsonrpc": "2.0", "error": error.body}
    return fields if request_id is None else {**fields, "id": request_id}


def notification(method: str, params: Json) -> Json:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}
