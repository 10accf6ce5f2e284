"""The target of a request: a server, and the name of a tool or other entry at that server."""

import re
from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.access.anonymous import KEY_DIGEST as ANONYMOUS
from toolbus_common.access.tool_names import is_own_name
from toolbus_common.calls.idempotency_key import validated_key
from toolbus_common.contracts import FOLLOW, IDEMPOTENCY, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, UnknownToolError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp.param_headers import required_headers
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


class RoutePlan(Struct, frozen=True):
    """The properties that all calls of one name at one endpoint share.

    `seconds` is the initial time limit of a call if `call_timeout` is not set. `param_headers` are
    the headers that must repeat arguments of a tool, and the paths of the arguments.
    """

    server: str
    name: str
    seconds: float
    param_headers: dict[str, tuple[str, ...]] = {}


class RouteTable:
    """The route plans, made at first use and dropped with any change of the catalogue.

    The catalogue also announces changes of the configuration. Only names that a server lists are
    stored, so clients cannot fill the table.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._plans: dict[tuple[str, str, str], RoutePlan] = {}
        catalogue.on_change.append(self._plans.clear)

    def plan(self, method: str, name: str, endpoint: str) -> RoutePlan:
        """Return the plan of a name; `endpoint` is the server of the endpoint, empty for all.

        Raises:
            UnknownToolError: no server can have an entry of this name.

        """
        key = method, name, endpoint
        return self._plans.get(key) or self._make(key)

    def seconds(self, server: str, name: str) -> float:
        """Return the initial time limit of a call, from the configuration of its server."""
        return self.catalogue.deadline(server, name, 0.0)

    def _make(self, key: tuple[str, str, str]) -> RoutePlan:
        method, name, endpoint = key
        kind = "tools" if method == TOOLS_CALL else "prompts"
        server, own_name = self.catalogue.names.meant(name, kind, endpoint)
        if not is_server_name(server) or not is_own_name(own_name):
            raise UnknownToolError.named(name[:128], method)
        seconds = self.seconds(server, own_name)
        if not self.catalogue.offers(kind, server, own_name):
            return RoutePlan(server, own_name, seconds)
        definition = self.catalogue.definition(server, own_name) if kind == "tools" else None
        headers = required_headers((definition or {}).get("inputSchema"))
        plan = self._plans[key] = RoutePlan(server, own_name, seconds, headers)
        return plan


class CallTarget(Struct, frozen=True):
    """A server, one of its names or URIs, and the method's arguments as raw JSON.

    `route` is set for tools and prompts.
    """

    server: str
    name: str
    arguments: bytes
    route: RoutePlan | None = None


def is_server_method(request: Request) -> bool:
    """Return whether this method is sent to a server instead of answered by ingress."""
    return (
        request.method in _SERVER_METHODS and request.method != _OTHER_FAMILY_ONLY[request.family]
    )


def call_target(
    request: Request, caller: Caller, routes: RouteTable, sealer: ClaimSealer
) -> CallTarget:
    """Return the target of a request.

    Raises:
        InvalidError: the params are malformed.
        UnknownToolError: the caller sees no such tool, prompt or resource.

    """
    method, params = request.method, request.params
    if method in (TOOLS_CALL, "prompts/get"):
        return _tool_target(method, params, caller, routes)
    if method in TASKS or method == FOLLOW:
        return _task_target(params, caller, sealer)
    if method == "completion/complete":
        return _completion_target(params, caller, routes)
    server, uri = _resource_owner(params.get("uri"), caller, routes.catalogue)
    return CallTarget(server, uri, strict_json.dump({**_forwarded(params), "uri": uri}))


def _tool_target(
    method: str, params: dict[str, Any], caller: Caller, routes: RouteTable
) -> CallTarget:
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InvalidError(f"{method} needs a name (a string) and arguments (an object).")
    plan = routes.plan(method, name, caller.server)
    return CallTarget(plan.server, plan.name, strict_json.dump(arguments), plan)


def _resource_owner(uri: Any, caller: Caller, catalogue: Catalogue) -> tuple[str, str]:
    if not isinstance(uri, str) or not uri or len(uri) > LONGEST_URI:
        raise InvalidError(f"A uri (a string of at most {LONGEST_URI} characters) is required.")
    owner = catalogue.owner_of(caller.grants, caller.server, uri)
    if owner is None:
        raise UnknownToolError.named(uri[:512], "resources/read")
    return owner


def _completion_target(params: dict[str, Any], caller: Caller, routes: RouteTable) -> CallTarget:
    ref = params.get("ref")
    if not isinstance(ref, dict):
        raise InvalidError("completion/complete needs a ref (an object).")
    if isinstance(ref.get("name"), str):
        plan = routes.plan("prompts/get", ref["name"], caller.server)
        server, own_name = plan.server, plan.name
        ref = {**ref, "name": own_name}
    else:
        server, own_name = _resource_owner(ref.get("uri"), caller, routes.catalogue)
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
    """Return the params without the members that are sent separately from the arguments."""
    return {name: value for name, value in params.items() if name not in _NOT_FORWARDED}


def is_server_name(name: str) -> bool:
    """Return whether a server could be configured under this name."""
    return _SERVER.fullmatch(name) is not None


def idempotency_key(request: Request, caller: Caller) -> str:
    """Return the idempotency key of a tool call; empty for other methods.

    Raises:
        InvalidError: the key is malformed, or the caller is anonymous.

    """
    key = validated_key(request.meta.get(IDEMPOTENCY)) if request.method == TOOLS_CALL else ""
    if key and caller.key_digest == ANONYMOUS:
        raise InvalidError(
            "An idempotency key requires an identified caller, and this request is anonymous. "
            "Send an API key, start a session, or remove the idempotency key."
        )
    return key
