"""What the edge answers by itself: the handshake, discovery, lists, and a session's own matters."""

from typing import Any

from toolbus_common import VERSION as RELEASE
from toolbus_common import strict_json
from toolbus_common.contracts import THROUGH, Listing, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.mcp.client_classes import class_of
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.catalog.list_context import ListedContext
from toolbus_ingress.catalog.server_identity import introduced
from toolbus_ingress.catalog.tool_catalog import LISTS, Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp.call_handler import Relay
from toolbus_ingress.mcp.error_mapping import told
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.session_store import LEVELS, Sessions

SESSION = b"mcp-session-id"
_NO_TASK_LIST = (
    "tasks/list is not offered: servers do not know which key began a task. Keep the ids that your "
    "calls were answered with, and ask tasks/get."
)
_WATCHING = ("resources/subscribe", "resources/unsubscribe")


class Local:
    """Methods that need no server, or only tell it to watch something."""

    def __init__(
        self, catalogue: Catalogue, sessions: Sessions, relay: Relay, context: ListedContext
    ) -> None:
        self._catalogue = catalogue
        self._sessions = sessions
        self._relay = relay
        self._context = context

    async def answer(self, visit: Visit, request: Request) -> Response:
        """Answer a request of a method that no server answers."""
        if request.method in LISTS:
            return self._listed(visit, request)
        if request.family is ProtocolFamily.MODERN:
            return self._modern(visit, request)
        if request.method == "initialize":
            return self._initialize(visit, request)
        try:
            return await self._of_session(visit, request)
        except ToolbusError as error:
            return told(error, request, "")

    def _listed(self, visit: Visit, request: Request) -> Response:
        if request.params.get("cursor") is not None:  # every list is one page
            sentence = "Unknown cursor; list again from the beginning."
            return jsonrpc.error(200, jsonrpc.INVALID_PARAMS, sentence, request_id=request.id)
        caller = visit.caller
        modern = request.family is ProtocolFamily.MODERN
        able = request.meta.get(protocol_versions.CAPABILITIES) if modern else _declared_by(visit)
        client = class_of(able)
        body = self._catalogue.told(request.method, caller, request.family, client)
        self._context.note(caller, request.method, request.family, len(body))
        answer = jsonrpc.result(request.id, body)
        if caller.server and self._catalogue.hides(caller.bounds, caller.server):
            return Response(answer.status, answer.body, answer.headers, "server_not_granted")
        return answer

    def _modern(self, visit: Visit, request: Request) -> Response:
        if request.method != "server/discover":
            return _unknown(request, 404)
        listings, server = self._visible(visit), visit.caller.server
        told = introduced(listings, ProtocolFamily.MODERN, server)
        result = {
            "resultType": "complete",
            "supportedVersions": list(protocol_versions.MODERN),
            "capabilities": told["capabilities"],
            **_optional(told),
            "ttlMs": self._catalogue.discovery_ttl_ms(listings, server),
            "cacheScope": "private",
            "_meta": {
                protocol_versions.META + "serverInfo": told["serverInfo"],
                **_through(server),
            },
        }
        return jsonrpc.result(request.id, strict_json.dump(result))

    def _initialize(self, visit: Visit, request: Request) -> Response:
        asked = request.params.get("protocolVersion")
        version = asked if asked in protocol_versions.LEGACY else protocol_versions.LEGACY[0]
        able = request.params.get("capabilities")
        session = self._sessions.begin(visit.caller.account, version, able)
        server = visit.caller.server
        told = introduced(self._visible(visit), ProtocolFamily.LEGACY, server)
        declared = told["capabilities"]
        if version != protocol_versions.LEGACY[0]:
            declared.pop("tasks", None)  # no revision before has them
        result = {
            "protocolVersion": version,
            "capabilities": declared,
            "serverInfo": told["serverInfo"],
            **_optional(told),
            **({"_meta": meta} if (meta := _through(server)) else {}),
        }
        answer = jsonrpc.result(request.id, strict_json.dump(result))
        return Response(answer.status, answer.body, ((SESSION, session.token.encode()),))

    async def _of_session(self, visit: Visit, request: Request) -> Response:
        if request.method == "logging/setLevel":
            self._set_level(visit, request.params.get("level"))
        elif request.method in _WATCHING:
            await self._watch(visit, request)
        elif request.method == "tasks/list":
            return jsonrpc.error(
                200, jsonrpc.METHOD_NOT_FOUND, _NO_TASK_LIST, request_id=request.id
            )
        elif request.method != "ping":
            return _unknown(request, 200)
        return jsonrpc.result(request.id, b"{}")

    def _set_level(self, visit: Visit, level: Any) -> None:
        if level not in LEVELS:
            raise InvalidError(f"The level must be one of {', '.join(LEVELS)}.")
        if visit.session is not None:
            self._sessions.tell(visit.session, "level", str(level))

    async def _watch(self, visit: Visit, request: Request) -> None:
        uri = request.params.get("uri")
        if not isinstance(uri, str):
            raise InvalidError(f"{request.method} needs a uri (a string).")
        if request.method == "resources/subscribe":
            await self._relay.subscribe(visit, request, uri)
        if visit.session is not None:
            what = "subscribed" if request.method == "resources/subscribe" else "unsubscribed"
            self._sessions.tell(visit.session, what, uri)

    def _visible(self, visit: Visit) -> list[Listing]:
        return self._catalogue.visible(visit.caller.bounds, visit.caller.server)


def _optional(told: dict[str, Any]) -> dict[str, Any]:
    """The instructions, where there are any: a server without them has none of ours."""
    return {name: told[name] for name in ("instructions",) if name in told}


def _through(server: str) -> dict[str, Any]:
    """That what is said is a server's own and comes through here, for gateways in front of us."""
    return {THROUGH: RELEASE} if server else {}


def _unknown(request: Request, status: int) -> Response:
    sentence = f"Method not found: {request.method[:128]}"
    return jsonrpc.error(status, jsonrpc.METHOD_NOT_FOUND, sentence, request_id=request.id)


def _declared_by(visit: Visit) -> dict[str, Any]:
    return visit.session.declared if visit.session is not None else {}
