"""Count responses that reject credentials, for events and metrics."""

from collections.abc import Mapping
from typing import Any

from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_ingress.http.client_address import client_address
from toolbus_ingress.http.jsonrpc import Response

_STATUSES = {401: "unauthorized", 403: "forbidden"}
_ENTRANCES = (
    ("/api/approvals", "approvals"),
    ("/approvals/", "approvals"),
    ("/api", "admin"),
    ("/console", "console"),
    ("/oauth/", "oauth"),
    ("/.well-known/", "oauth"),
    ("/mcp", "mcp"),
    ("/sse", "mcp"),
    ("/v1/mcp/", "mcp"),
    ("/v1/", "models"),
)
_CREDENTIALS = (b"authorization", b"x-api-key")
_PAGES = ("/approvals/", "/console/", "/oauth/")  # pages that receive credentials in a form


def count(rejections: RejectionCounter, scope: Mapping[str, Any], response: Response) -> None:
    """Count a response that rejects credentials or that denies access."""
    code = response.rejected or _STATUSES.get(response.status, "")
    if not code:
        return
    path: str = scope["path"]
    has_credential = any(name in _CREDENTIALS for name, _ in scope["headers"])
    if code == "unauthorized" and not path.startswith(_PAGES) and not has_credential:
        code = "no_credential"
    entrance = next((name for start, name in _ENTRANCES if path.startswith(start)), "http")
    rejections.note(entrance, code, client_address(scope))
