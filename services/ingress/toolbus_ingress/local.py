"""What the edge answers by itself: the handshake, discovery, lists, and a session's own matters."""

from typing import Any

from toolbus_common import strictjson
from toolbus_common.asklane import VERSION as RELEASE
from toolbus_common.client_classes import class_of
from toolbus_common.contracts import Era, Listing
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_ingress import eras, jsonrpc
from toolbus_ingress.caller import Visit
from toolbus_ingress.eras import Request
from toolbus_ingress.failures import told
from toolbus_ingress.jsonrpc import Response
from toolbus_ingress.listing import LISTS, TTL_MS, Catalogue, capabilities
from toolbus_ingress.relay import Relay
from toolbus_ingress.sessions import LEVELS, Sessions

SESSION = b"mcp-session-id"
_SERVER_INFO = {"name": "toolbus", "version": RELEASE}
_INSTRUCTIONS = (
    "Tools of several servers behind one gateway; each is named server__tool. "
    "Calls are checked, priced and recorded; a refusal says what to do about it."
)
_NO_TASK_LIST = (
    "tasks/list is not offered: servers do not know which key began a task. Keep the ids that your "
    "calls were answered with, and ask tasks/get."
)
_WATCHING = ("resources/subscribe", "resources/unsubscribe")


class Local:
    """Methods that need no server, or only tell it to watch something."""

    def __init__(self, catalogue: Catalogue, sessions: Sessions, relay: Relay) -> None:
        self._catalogue = catalogue
        self._sessions = sessions
        self._relay = relay

    async def answer(self, visit: Visit, request: Request) -> Response:
        """Answer a request of a method that no server answers."""
        if request.method in LISTS:
            return self._listed(visit, request)
        if request.era is Era.MODERN:
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
        modern = request.era is Era.MODERN
        able = request.meta.get(eras.CAPABILITIES) if modern else _declared_by(visit)
        client = class_of(able)
        body = self._catalogue.told(request.method, caller, request.era, client)
        answer = jsonrpc.result(request.id, body)
        if caller.server and self._catalogue.hides(caller.bounds, caller.server):
            return Response(answer.status, answer.body, answer.headers, "server_not_granted")
        return answer

    def _modern(self, visit: Visit, request: Request) -> Response:
        if request.method != "server/discover":
            return _unknown(request, 404)
        listings = self._visible(visit)
        result = {
            "resultType": "complete",
            "supportedVersions": list(eras.MODERN),
            "capabilities": capabilities(listings, Era.MODERN),
            "instructions": _instructions(visit, listings),
            # What a stateless server says of itself is asked once for each connection to it.
            "ttlMs": 0 if any(listing.era == Era.MODERN for listing in listings) else TTL_MS,
            "cacheScope": "private",
            "_meta": {eras.META + "serverInfo": _SERVER_INFO},
        }
        return jsonrpc.result(request.id, strictjson.dump(result))

    def _initialize(self, visit: Visit, request: Request) -> Response:
        asked = request.params.get("protocolVersion")
        version = asked if asked in eras.LEGACY else eras.LEGACY[0]
        able = request.params.get("capabilities")
        session = self._sessions.begin(visit.caller.principal, version, able)
        listings = self._visible(visit)
        declared = capabilities(listings, Era.LEGACY)
        if version != eras.LEGACY[0]:
            declared.pop("tasks", None)  # no revision before has them
        result = {
            "protocolVersion": version,
            "capabilities": declared,
            "serverInfo": _SERVER_INFO,
            "instructions": _instructions(visit, listings),
        }
        answer = jsonrpc.result(request.id, strictjson.dump(result))
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


def _instructions(visit: Visit, listings: list[Listing]) -> str:
    """The gateway's words, or on the endpoint of one server that server's own."""
    own = listings[0].instructions if visit.caller.server and listings else ""
    return own or _INSTRUCTIONS


def _unknown(request: Request, status: int) -> Response:
    sentence = f"Method not found: {request.method[:128]}"
    return jsonrpc.error(status, jsonrpc.METHOD_NOT_FOUND, sentence, request_id=request.id)


def _declared_by(visit: Visit) -> dict[str, Any]:
    return visit.session.declared if visit.session is not None else {}
