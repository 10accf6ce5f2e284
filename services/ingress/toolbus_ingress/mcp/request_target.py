"""What a request is about: which server, and what it is called there."""

import re
from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.access.tool_names import is_own_name
from toolbus_common.contracts import FOLLOW, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, UnknownToolError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp.tasks import unknown
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sealed_claims import Seal, TaskClaims

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}")

LONGEST_URI = 4096
TASKS = frozenset({"tasks/get", "tasks/update", "tasks/result", "tasks/cancel"})
_OTHERS_ONLY = {ProtocolFamily.MODERN: "tasks/result", ProtocolFamily.LEGACY: "tasks/update"}
_RELAYED = frozenset(
    {TOOLS_CALL, "prompts/get", "resources/read", "completion/complete"} | TASKS
)  # methods a server answers


class Subject(Struct, frozen=True):
    """A server, a name or URI there, and the raw JSON that goes with the method."""

    server: str
    name: str
    arguments: bytes


def is_relayed(request: Request) -> bool:
    """Whether a server answers this, not the edge itself."""
    return request.method in _RELAYED and request.method != _OTHERS_ONLY[request.family]


def subject_of(request: Request, caller: Caller, catalogue: Catalogue, seal: Seal) -> Subject:
    """Raises `InvalidError` for what is malformed, `UnknownToolError` for what is not there."""
    method, params = request.method, request.params
    if method in (TOOLS_CALL, "prompts/get"):
        return _named(method, params, caller, catalogue)
    if method in TASKS or method == FOLLOW:
        return _of_task(params, caller, seal)
    if method == "completion/complete":
        return _completed(params, caller, catalogue)
    server, uri = _owner(params.get("uri"), caller, catalogue)
    return Subject(server, uri, strict_json.dump({**_bare(params), "uri": uri}))


def _named(method: str, params: dict[str, Any], caller: Caller, catalogue: Catalogue) -> Subject:
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InvalidError(f"{method} needs a name (a string) and arguments (an object).")
    server, inner = _meant(name, caller, catalogue, method)
    return Subject(server, inner, strict_json.dump(arguments))


def _meant(name: str, caller: Caller, catalogue: Catalogue, method: str) -> tuple[str, str]:
    kind = "tools" if method == TOOLS_CALL else "prompts"
    server, inner = catalogue.names.meant(name, kind, caller.server)
    if not is_server_name(server) or not is_own_name(inner):
        raise UnknownToolError.named(name[:128], method)
    return server, inner


def _owner(uri: Any, caller: Caller, catalogue: Catalogue) -> tuple[str, str]:
    if not isinstance(uri, str) or not uri or len(uri) > LONGEST_URI:
        raise InvalidError(f"A uri (a string of at most {LONGEST_URI} characters) is needed.")
    owner = catalogue.owner_of(caller.bounds, caller.server, uri)
    if owner is None:
        raise UnknownToolError.named(uri[:512], "resources/read")
    return owner


def _completed(params: dict[str, Any], caller: Caller, catalogue: Catalogue) -> Subject:
    ref = params.get("ref")
    if not isinstance(ref, dict):
        raise InvalidError("completion/complete needs a ref (an object).")
    if isinstance(ref.get("name"), str):
        server, inner = _meant(ref["name"], caller, catalogue, "prompts/get")
        ref = {**ref, "name": inner}
    else:
        server, inner = _owner(ref.get("uri"), caller, catalogue)
        ref = {**ref, "uri": inner}
    return Subject(server, inner, strict_json.dump({**_bare(params), "ref": ref}))


def _of_task(params: dict[str, Any], caller: Caller, seal: Seal) -> Subject:
    claims = seal.open(params.get("taskId"), TaskClaims)
    foreign = claims is not None and caller.server not in ("", claims.server)
    if claims is None or foreign or claims.principal_id != caller.principal_id:
        raise unknown()
    if not isinstance(params.get("inputResponses", {}), dict):
        raise InvalidError("inputResponses must be an object.")
    told = {name: value for name, value in params.items() if name != "_meta"}
    arguments = strict_json.dump({**told, "taskId": claims.task})
    return Subject(claims.server, claims.tool, arguments)


def _bare(params: dict[str, Any]) -> dict[str, Any]:
    """The params without what travels beside them."""
    return {name: value for name, value in params.items() if name not in _BESIDE}


_BESIDE = frozenset({"_meta", "inputResponses", "requestState"})


def is_server_name(name: str) -> bool:
    """Whether a server could be declared under this name."""
    return _SERVER.fullmatch(name) is not None
