"""One request as a tool sees it: arguments, client capabilities, requests to the client."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .wire import (
    INVALID_PARAMS,
    LEVELS,
    LOG_LEVEL,
    MISSING_CAPABILITY,
    Json,
    ProtocolFamily,
    RefusedError,
    notification,
)

_KEY = secrets.token_bytes(32)
_NEEDS = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


class InputNeededError(Exception):
    """The request needs answers of the client: `result` lists which."""

    def __init__(self, result: Json) -> None:
        super().__init__("input needed")
        self.result = result


class Peer(Protocol):
    """The back-channel to the client during a request."""

    def notify(self, message: Json) -> None:
        """Send a notification."""

    async def request(self, method: str, params: Json) -> Json:
        """Send a request; only the handshake family supports it."""

    def pause(self) -> bool:
        """Close the connection of the answer, not the request; return whether that is possible."""


@dataclass
class Call:
    """One request in progress."""

    family: ProtocolFamily
    method: str
    params: Json
    capabilities: Json
    peer: Peer
    level: str | None = None
    lax: bool = False
    revision: str = ""
    # replaced for a task, which has its own input requests
    answered: Callable[[Json], Any] | None = None
    _known: Json = field(default_factory=dict)
    _state_read: bool = False

    @property
    def arguments(self) -> Json:
        """The arguments of the tool or prompt."""
        found = self.params.get("arguments")
        return found if isinstance(found, dict) else {}

    @property
    def meta(self) -> Json:
        """The request's `_meta`."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}

    def can(self, capability: str) -> bool:
        """Return whether the client declared a capability."""
        return capability in self.capabilities

    def progress(self, progress: float, total: float, message: str) -> None:
        """Send progress if the client requested it."""
        token = self.meta.get("progressToken")
        if token is None:
            return
        fields = {"progressToken": token, "progress": progress, "total": total, "message": message}
        self.peer.notify(notification("notifications/progress", fields))

    def log(self, level: str, data: Any) -> None:
        """Send a log message if the client wants this level; a lax server always sends it."""
        wanted = self.meta.get(LOG_LEVEL) if self.family is ProtocolFamily.MODERN else self.level
        if wanted in LEVELS and LEVELS.index(level) < LEVELS.index(wanted):
            return
        if wanted in LEVELS or self.lax:
            fields = {"level": level, "logger": "fixture", "data": data}
            self.peer.notify(notification("notifications/message", fields))

    async def ask(self, requests: Json, *, stateful: bool = False) -> Json:
        """Return the client's answers to these requests, by key.

        In the handshake family the requests are sent at once; in the stateless family the call ends
        until the client repeats it with the answers. With `stateful`, the answers of an earlier
        round come back in the sealed state, and answers without that state are ignored.
        """
        self._check_abilities(requests)
        if self.answered is not None:
            found: Json = await self.answered(requests)
            return found
        if self.family is ProtocolFamily.LEGACY:
            asking = [
                self.peer.request(request["method"], request.get("params", {}))
                for request in requests.values()
            ]
            return dict(zip(requests, await asyncio.gather(*asking), strict=True))
        return self._collect(requests, stateful=stateful)

    def _check_abilities(self, requests: Json) -> None:
        lacking = {}
        for request in requests.values():
            capability = _NEEDS[request["method"]]
            needed: Json = {}
            if request.get("params", {}).get("mode") == "url":
                needed = {"url": {}}
            declared = self.capabilities.get(capability)
            if not isinstance(declared, dict) or (needed and "url" not in declared):
                lacking[capability] = needed
        if lacking:
            message = f"The client does not offer {', '.join(sorted(lacking))}."
            data = {"requiredCapabilities": lacking}
            raise RefusedError(MISSING_CAPABILITY, message, data, status=400)

    def _collect(self, requests: Json, *, stateful: bool) -> Json:
        state = self._state() if stateful else {}
        given = self.params.get("inputResponses")
        if isinstance(given, dict) and (state is not None):
            self._known |= {k: v for k, v in given.items() if k not in self._known}
        missing = {
            key: request
            for key, request in requests.items()
            if not _fits(request["method"], self._known.get(key))
        }
        if missing:
            result: Json = {"resultType": "input_required", "inputRequests": missing}
            if stateful:
                result["requestState"] = self._seal()
            raise InputNeededError(result)
        return {key: self._known[key] for key in requests}

    def _state(self) -> Json | None:
        """Return the state of an earlier round; None in the first round."""
        sealed = self.params.get("requestState")
        if sealed is None:
            return None
        if not self._state_read:
            self._known |= self._open(sealed)
            self._state_read = True
        return self._known

    def _seal(self) -> str:
        remembered = {"for": self._subject, "answers": self._known, "nonce": secrets.token_hex(8)}
        body = base64.urlsafe_b64encode(json.dumps(remembered).encode()).decode()
        return f"{body}.{_signature(body)}"

    def _open(self, sealed: Any) -> Json:
        body, _, signature = str(sealed).partition(".")
        if not self.lax and not hmac.compare_digest(signature, _signature(body)):
            raise RefusedError(INVALID_PARAMS, "The requestState is not one of ours.")
        try:
            remembered = json.loads(base64.urlsafe_b64decode(body))
        except (binascii.Error, ValueError):
            return {}
        if not self.lax and remembered["for"] != self._subject:
            raise RefusedError(INVALID_PARAMS, "The requestState belongs to another request.")
        answers: Json = remembered["answers"]
        return answers

    @property
    def _subject(self) -> str:
        return f"{self.method} {self.params.get('name') or self.params.get('uri')}"


def _signature(body: str) -> str:
    return hmac.new(_KEY, body.encode(), hashlib.sha256).hexdigest()


def _fits(method: str, answer: Any) -> bool:
    """Return whether an answer has the type that its request requires."""
    if not isinstance(answer, dict):
        return False
    if method == "elicitation/create":
        return answer.get("action") in ("accept", "decline", "cancel")
    if method == "sampling/createMessage":
        return "content" in answer
    return isinstance(answer.get("roots"), list)
