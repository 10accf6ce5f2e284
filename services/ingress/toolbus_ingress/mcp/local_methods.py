"""Methods that ingress answers itself: handshake, discovery, lists, and session settings."""

from typing import Any

from toolbus_common import VERSION as RELEASE
from toolbus_common import strict_json
from toolbus_common.contracts import THROUGH, Listing, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.mcp import revisions
from toolbus_common.mcp.client_classes import class_of
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.catalog.list_context import ListSizeCounter
from toolbus_ingress.catalog.server_identity import endpoint_identity
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.catalog.view_cache import ViewCache
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.error_mapping import error_response
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.session_store import LEVELS, Sessions

SESSION = b"mcp-session-id"
MAX_HANDSHAKES = 1000
_NO_TASK_LIST = (
    "tasks/list is not supported: servers do not know which key created a task. Store the task ids "
    "of your calls, and use tasks/get."
)
_SUBSCRIPTIONS = ("resources/subscribe", "resources/unsubscribe")


class LocalMethods:
    """Answers the methods that need no server, and forwards resource subscriptions to servers."""

    def __init__(
        self,
        catalogue: Catalogue,
        sessions: Sessions,
        call_handler: CallHandler,
        list_sizes: ListSizeCounter,
    ) -> None:
        self._catalogue = catalogue
        self._sessions = sessions
        self._call_handler = call_handler
        self._list_sizes = list_sizes
        # The results of `initialize`, until the catalogue changes.
        self._handshakes = ViewCache[bytes](MAX_HANDSHAKES)
        catalogue.on_change.append(self._handshakes.clear)

    async def answer(self, context: RequestContext, request: Request) -> Response:
        """Answer a request whose method is not sent to a server."""
        if request.method in LISTS:
            return self._list(context, request)
        if request.family is ProtocolFamily.MODERN:
            return self._discover(context, request)
        if request.method == "initialize":
            return self._initialize(context, request)
        try:
            return await self._session_method(context, request)
        except ToolbusError as error:
            return error_response(error, request, "")

    def _list(self, context: RequestContext, request: Request) -> Response:
        if request.params.get("cursor") is not None:  # every list is one page
            message = "Unknown cursor. List again without a cursor."
            return jsonrpc.error(200, jsonrpc.INVALID_PARAMS, message, request_id=request.id)
        caller, session = context.caller, context.session
        if request.family is ProtocolFamily.MODERN:
            capabilities = request.meta.get(protocol_versions.CAPABILITIES)
        else:
            capabilities = session.declared if session is not None else {}
        client = class_of(capabilities)
        body = self._catalogue.list_result(request.method, caller, request.family, client)
        self._list_sizes.note(caller, request.method, request.family, len(body))
        answer = jsonrpc.result(request.id, body)
        if caller.server and self._catalogue.hides(caller.grants, caller.server):
            return Response(answer.status, answer.body, answer.headers, "server_not_granted")
        return answer

    def _discover(self, context: RequestContext, request: Request) -> Response:
        if request.method != "server/discover":
            return _method_not_found(request, 404)
        listings, server = self._visible(context), context.caller.server
        identity = endpoint_identity(listings, ProtocolFamily.MODERN, server)
        result = {
            "resultType": "complete",
            "supportedVersions": list(revisions.MODERN),
            "capabilities": identity["capabilities"],
            **_instructions(identity),
            "ttlMs": self._catalogue.discovery_ttl_ms(listings, server),
            "cacheScope": "private",
            "_meta": {
                protocol_versions.META + "serverInfo": identity["serverInfo"],
                **_gateway_meta(server),
            },
        }
        return jsonrpc.result(request.id, strict_json.dump(result))

    def _initialize(self, context: RequestContext, request: Request) -> Response:
        requested = request.params.get("protocolVersion")
        version = requested if requested in revisions.LEGACY else revisions.LEGACY[0]
        session = self._sessions.begin(
            context.caller.session_owner, version, request.params.get("capabilities")
        )
        key = (context.caller.grants, context.caller.server, version)
        body = self._handshakes.get(key)
        if body is None:
            body = self._handshake(context, version)
            self._handshakes.put(key, body, len(body))
        answer = jsonrpc.result(request.id, body)
        return Response(answer.status, answer.body, ((SESSION, session.token.encode()),))

    def _handshake(self, context: RequestContext, version: str) -> bytes:
        server = context.caller.server
        identity = endpoint_identity(self._visible(context), ProtocolFamily.LEGACY, server)
        capabilities = identity["capabilities"]
        if version != revisions.LEGACY[0]:
            capabilities.pop("tasks", None)  # earlier revisions have no tasks
        result = {
            "protocolVersion": version,
            "capabilities": capabilities,
            "serverInfo": identity["serverInfo"],
            **_instructions(identity),
            **({"_meta": meta} if (meta := _gateway_meta(server)) else {}),
        }
        return strict_json.dump(result)

    async def _session_method(self, context: RequestContext, request: Request) -> Response:
        if request.method == "logging/setLevel":
            level = request.params.get("level")
            if level not in LEVELS:
                raise InvalidError(f"Invalid log level. Use one of {', '.join(LEVELS)}.")
            if context.session is not None:
                self._sessions.update(context.session, "level", str(level))
        elif request.method in _SUBSCRIPTIONS:
            await self._subscribe(context, request)
        elif request.method == "tasks/list":
            return jsonrpc.error(
                200, jsonrpc.METHOD_NOT_FOUND, _NO_TASK_LIST, request_id=request.id
            )
        elif request.method != "ping":
            return _method_not_found(request, 200)
        return jsonrpc.result(request.id, b"{}")

    async def _subscribe(self, context: RequestContext, request: Request) -> None:
        uri = request.params.get("uri")
        if not isinstance(uri, str):
            raise InvalidError(f"{request.method} needs a uri (a string).")
        if request.method == "resources/subscribe":
            await self._call_handler.subscribe(context, request, uri)
        if context.session is not None:
            what = "subscribed" if request.method == "resources/subscribe" else "unsubscribed"
            self._sessions.update(context.session, what, uri)

    def _visible(self, context: RequestContext) -> list[Listing]:
        return self._catalogue.visible(context.caller.grants, context.caller.server)


def _instructions(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity's instructions as a member; empty if it has no instructions."""
    return {name: identity[name] for name in ("instructions",) if name in identity}


def _gateway_meta(server: str) -> dict[str, Any]:
    """Return the `_meta` that marks a server's endpoint as served through this gateway.

    Another gateway that calls this gateway detects it by this mark.
    """
    return {THROUGH: RELEASE} if server else {}


def _method_not_found(request: Request, status: int) -> Response:
    message = f"Method not found: {request.method[:128]}"
    return jsonrpc.error(status, jsonrpc.METHOD_NOT_FOUND, message, request_id=request.id)
