"""The target of a request: a server, and the name of a tool or other entry at that server."""

import re
from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.access.tool_names import is_own_name
from toolbus_common.contracts import FOLLOW, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, UnknownToolError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp.tasks import unknown_task
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, TaskClaims

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}")

LONGEST_URI = 4096
TASKS = frozenset({"tasks/get", "tasks/update", "tasks/result", "tasks/cancel"})
_OTHER_FAMILY_ONLY = {
    ProtocolFamily.MODERN: "tasks/result",
    ProtocolFamily.LEGACY: "tasks/update",
}
_SERVER_METHODS = frozenset(
    {TOOLS_CALL, "prompts/get", "resources/read", "completion/complete"} | TASKS
)
_NOT_FORWARDED = frozenset({"_meta", "inputResponses", "requestState"})


class CallTarget(Struct, frozen=True):
    """A server, one of its names or URIs, and the method's arguments as raw JSON."""

    server: str
    name: str
    arguments: bytes


def is_server_method(request: Request) -> bool:
    """Return whether this method is sent to a server instead of answered by ingress."""
    return (
        request.method in _SERVER_METHODS and request.method != _OTHER_FAMILY_ONLY[request.family]
    )


def call_target(
    request: Request, caller: Caller, catalogue: Catalogue, sealer: ClaimSealer
) -> CallTarget:
    """Return the target of a request.

    Raises:
        InvalidError: the params are malformed.
        UnknownToolError: the caller sees no such tool, prompt or resource.

    """
    method, params = request.method, request.params
    if method in (TOOLS_CALL, "prompts/get"):
        return _tool_target(method, params, caller, catalogue)
    if method in TASKS or method == FOLLOW:
        return _task_target(params, caller, sealer)
    if method == "completion/complete":
        return _completion_target(params, caller, catalogue)
    server, uri = _resource_owner(params.get("uri"), caller, catalogue)
    return CallTarget(server, uri, strict_json.dump({**_forwarded(params), "uri": uri}))


def _tool_target(
    method: str, params: dict[str, Any], caller: Caller, catalogue: Catalogue
) -> CallTarget:
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InvalidError(f"{method} needs a name (a string) and arguments (an object).")
    server, own_name = _resolve_name(name, caller, catalogue, method)
    return CallTarget(server, own_name, strict_json.dump(arguments))


def _resolve_name(name: str, caller: Caller, catalogue: Catalogue, method: str) -> tuple[str, str]:
    kind = "tools" if method == TOOLS_CALL else "prompts"
    server, own_name = catalogue.names.meant(name, kind, caller.server)
    if not is_server_name(server) or not is_own_name(own_name):
        raise UnknownToolError.named(name[:128], method)
    return server, own_name


def _resource_owner(uri: Any, caller: Caller, catalogue: Catalogue) -> tuple[str, str]:
    if not isinstance(uri, str) or not uri or len(uri) > LONGEST_URI:
        raise InvalidError(f"A uri (a string of at most {LONGEST_URI} characters) is required.")
    owner = catalogue.owner_of(caller.grants, caller.server, uri)
    if owner is None:
        raise UnknownToolError.named(uri[:512], "resources/read")
    return owner


def _completion_target(params: dict[str, Any], caller: Caller, catalogue: Catalogue) -> CallTarget:
    ref = params.get("ref")
    if not isinstance(ref, dict):
        raise InvalidError("completion/complete needs a ref (an object).")
    if isinstance(ref.get("name"), str):
        server, own_name = _resolve_name(ref["name"], caller, catalogue, "prompts/get")
        ref = {**ref, "name": own_name}
    else:
        server, own_name = _resource_owner(ref.get("uri"), caller, catalogue)
        ref = {**ref, "uri": own_name}
    return CallTarget(server, own_name, strict_json.dump({**_forwarded(params), "ref": ref}))


def _task_target(params: dict[str, Any], caller: Caller, sealer: ClaimSealer) -> CallTarget:
    claims = sealer.open(params.get("taskId"), TaskClaims)
    foreign = claims is not None and caller.server not in ("", claims.server)
    if claims is None or foreign or claims.principal_id != caller.principal_id:
        raise unknown_task()
    if not isinstance(params.get("inputResponses", {}), dict):
        raise InvalidError("inputResponses must be an object.")
    forwarded = {name: value for name, value in params.items() if name != "_meta"}
    arguments = strict_json.dump({**forwarded, "taskId": claims.task})
    return CallTarget(claims.server, claims.tool, arguments)


def _forwarded(params: dict[str, Any]) -> dict[str, Any]:
    """Return the params without the members that are sent besides the arguments."""
    return {name: value for name, value in params.items() if name not in _NOT_FORWARDED}


def is_server_name(name: str) -> bool:
    """Return whether a server could be configured under this name."""
    return _SERVER.fullmatch(name) is not None
