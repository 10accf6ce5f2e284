"""Bridge that forwards JSON-RPC messages between one stdio client and one HTTP endpoint."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Thread
from typing import Any

from toolbus_cli.bridge import responses
from toolbus_cli.bridge.headers import Paths, modern_headers, params_of, version_of, wanted_by
from toolbus_cli.bridge.http import Endpoint, Flight, LostError, UnreachedError, events, whole
from toolbus_cli.bridge.session import NO_SESSION, Sessions
from toolbus_cli.bridge.stdio import LONGEST

MAX_IN_FLIGHT = 256
GRACE_SECONDS = 1.5  # for pending requests after the client closes stdin; clients wait two
SENT_SECONDS = 5.0
_LISTEN = "subscriptions/listen"
_SUBSCRIBE, _UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP reply to a request; `token` is the id of a new session, or empty."""

    status: int
    body: bytes
    token: str


class Bridge:
    """Bridge of one client; the protocol family is determined for each message.

    `say` writes a message to the client. `note` writes a diagnostic message.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        say: Callable[[bytes], None],
        note: Callable[[str], None],
    ) -> None:
        self._endpoint, self._say = endpoint, say
        self._common = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        self._sessions = Sessions(endpoint, self._common, say, note)
        self._flights: dict[str, tuple[Flight, Thread, str]] = {}
        self._tools: dict[str, Paths] = {}

    def serve(self, lines: Iterable[bytes | None]) -> None:
        """Forward every line, then wait for pending requests and end the session.

        None represents a line that exceeds the size limit; the client receives an error for it.
        """
        try:
            for line in lines:
                if line is None:
                    self._refuse(None, f"The line exceeds {LONGEST} bytes; send a shorter message.")
                else:
                    self.take(line)
            self._settle()
        finally:
            for flight, _, _ in list(self._flights.values()):
                flight.give_up()
            self._sessions.end()
            self._endpoint.close()

    def take(self, line: bytes) -> None:
        """Forward one message of the client."""
        message = responses.parsed(line)
        if not message:
            reason = "The line is not a JSON-RPC 2.0 message; send one message per line."
            self._say(responses.failure(None, responses.PARSE_ERROR, reason))
        elif "method" not in message:
            self._sessions.post(line)
        elif "id" not in message:
            self._notify(line, message)
        else:
            self._request(line, message)

    def _notify(self, line: bytes, message: dict[str, Any]) -> None:
        method = message["method"]
        if method == "notifications/cancelled" and self._cancelled(params_of(message)):
            return
        if self._sessions.now is not None:
            self._sessions.post(line)
            if method == "notifications/initialized":
                self._sessions.listen()

    def _cancelled(self, params: dict[str, Any]) -> bool:
        """Cancel a pending request; return False if the endpoint must be notified as well.

        In MCP 2026-07-28, closing the stream of a request cancels the request.
        """
        flight, _, _ = self._flights.get(_id_key(params.get("requestId")), (None, None, ""))
        if flight is None:
            return False
        if flight.modern:
            flight.give_up()
            return True
        flight.sent.wait(SENT_SECONDS)  # the cancellation must arrive after the request
        return False

    def _request(self, line: bytes, message: dict[str, Any]) -> None:
        request_id, method = message["id"], str(message["method"])
        id_key = _id_key(request_id)
        if id_key in self._flights:
            self._refuse(request_id, "A pending request has the same id; use another id.")
        elif len(self._flights) >= MAX_IN_FLIGHT:
            reason = f"{MAX_IN_FLIGHT} requests are pending; wait until one of them completes."
            self._say(responses.failure(request_id, responses.UNAVAILABLE, reason, "unavailable"))
        else:
            flight = Flight(modern=bool(version_of(message)))
            thread = Thread(target=self._answer, args=(line, message, flight), daemon=True)
            self._flights[id_key] = (flight, thread, method)
            thread.start()

    def _answer(self, line: bytes, message: dict[str, Any], flight: Flight) -> None:
        request_id, url = message["id"], self._endpoint.url
        try:
            request = self._ask_modern if flight.modern else self._ask_legacy
            reply = request(line, message, flight)
            answer = responses.for_request(reply.body, request_id, reply.status, url)
        except UnreachedError as error:
            answer = responses.unreached(request_id, url, str(error))
        except LostError as error:
            answer = responses.lost(request_id, url, str(error))
        except Exception as error:  # noqa: BLE001 - every request needs a reply
            reason = f"The bridge failed ({type(error).__name__}); please report it."
            answer = responses.failure(request_id, responses.INTERNAL_ERROR, reason)
        self._flights.pop(_id_key(request_id), None)
        if not flight.given_up:
            self._say(answer)

    def _ask_legacy(self, line: bytes, message: dict[str, Any], flight: Flight) -> Reply:
        begins = message["method"] == "initialize"
        session = None if begins else self._sessions.now
        reply = self._send(line, session.headers if session else {}, flight)
        ended = reply.status == NO_SESSION and session is not None and bool(session.token)
        if ended and session and self._sessions.renew(session):
            now = self._sessions.now
            reply = self._send(line, now.headers if now else {}, flight)
        if begins:
            self._sessions.begin(line, reply.body, reply.token)
        self._learn(line, message, reply)
        return reply

    def _ask_modern(self, line: bytes, message: dict[str, Any], flight: Flight) -> Reply:
        reply = self._send(line, modern_headers(message, self._tools), flight)
        mismatch = responses.code_of(responses.parsed(reply.body)) == responses.HEADER_MISMATCH
        if mismatch and message["method"] == "tools/call":
            # The client may have listed the tools in an earlier run of the bridge. List them
            # again: the tool's schema defines the required headers.
            self._list_tools(message, flight)
            reply = self._send(line, modern_headers(message, self._tools), flight)
        self._learn(line, message, reply)
        return reply

    def _list_tools(self, message: dict[str, Any], flight: Flight) -> None:
        meta = {**params_of(message)["_meta"]}
        meta.pop("progressToken", None)
        request = {"jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": {"_meta": meta}}
        line = json.dumps(request).encode()
        self._learn(line, request, self._send(line, modern_headers(request, {}), flight))

    def _learn(self, line: bytes, message: dict[str, Any], reply: Reply) -> None:
        """Store the parts of a reply that later requests need."""
        method, result = message["method"], responses.parsed(reply.body).get("result")
        if result is None:
            return
        if method == "tools/list":
            before = self._tools if "cursor" in params_of(message) else {}
            self._tools = {**before, **wanted_by(result)}
        elif method == "logging/setLevel":
            self._sessions.remember(method, line)
        elif method in (_SUBSCRIBE, _UNSUBSCRIBE):
            name = f"{_SUBSCRIBE} {params_of(message).get('uri')}"
            self._sessions.remember(name, line if method == _SUBSCRIBE else None)

    def _send(self, line: bytes, headers: dict[str, str], flight: Flight) -> Reply:
        with self._endpoint.exchange("POST", {**self._common, **headers}, line, flight) as response:
            token = response.getheader("mcp-session-id", "")
            if "event-stream" not in response.getheader("content-type", ""):
                return Reply(response.status, whole(response), token)
            for data in events(response):
                message = responses.parsed(data)
                if responses.is_answer(message):
                    return Reply(response.status, data, token)
                if message and not flight.given_up:
                    self._say(data)
        raise LostError("the response stream ended")

    def _settle(self) -> None:
        """Wait at most `GRACE_SECONDS` for pending requests other than subscriptions."""
        until = time.monotonic() + GRACE_SECONDS
        for _, thread, method in list(self._flights.values()):
            if method != _LISTEN:
                thread.join(max(0.0, until - time.monotonic()))

    def _refuse(self, request_id: Any, reason: str) -> None:
        self._say(responses.failure(request_id, responses.INVALID_REQUEST, reason))


def _id_key(request_id: Any) -> str:
    """Return a request id as a dictionary key that distinguishes 7 from "7"."""
    return json.dumps(request_id, sort_keys=True)
