"""`/api`: who administers asks here; policy judges the key and does what its role may.

No cookie is known here: every request carries its own proof, so no other site can make a browser
ask for its user.
"""

from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.errors import OverloadedError, ToolbusError, UnauthorizedError
from toolbus_common.http_server.body import Receive
from toolbus_common.nats.connection import bus_down
from toolbus_ingress.admin_api import openapi, responses
from toolbus_ingress.admin_api import request as asking
from toolbus_ingress.admin_api.request import Matched
from toolbus_ingress.auth.dpop import BEARER, SCHEMES
from toolbus_ingress.auth.protected_resource import token_of
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, RefusedRequestError, announced, whole_body
from toolbus_ingress.mcp.endpoint import Endpoint

SECONDS = 20.0
DOCUMENT = "/api/openapi.json"
WELCOME = {
    "openapi": DOCUMENT,
    "documentation": "Send an admin key as Authorization: Bearer; 'toolbus admins create' makes "
    "one. People to whom access gives a role send their access token. Every operation is described "
    "in the OpenAPI document.",
}


@dataclass(frozen=True, slots=True)
class Administration:
    """`/api`, `/api/openapi.json` and `/api/v1/…`."""

    endpoint: Endpoint

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """The answer, or None where the path is not of these."""
        path: str = scope["path"]
        if not serves(path):
            return None
        if self.endpoint.crowded:
            return responses.failed(OverloadedError("Too many requests are under way; retry."))
        return await self.endpoint.bounded(scope, self._answered(scope, path, receive))

    async def _answered(self, scope: dict[str, Any], path: str, receive: Receive) -> Response:
        try:
            headers = self.endpoint.guard.headers(scope)
            if not path.startswith("/api/v1"):
                return _told(path, scope["method"])
            found = asking.matched(path, scope["method"])
            if isinstance(found, tuple):
                return responses.not_allowed(found) if found else responses.nothing_here()
            return await self._done(found, headers, scope, receive)
        except RefusedRequestError as refusal:
            return responses.refused(refusal)
        except ToolbusError as error:
            return responses.failed(error, self.endpoint.identity.where_to_administer)

    async def _done(
        self, found: Matched, headers: Headers, scope: dict[str, Any], receive: Receive
    ) -> Response:
        operation = found.operation
        key_digest = await self._key_digest(found, headers, scope)
        asking.check_name(found)
        wanted = asking.query_of(scope["query_string"], operation)
        match = asking.match_of(headers) if operation.match else ""
        form, body = await self._body(found, headers, receive)
        if operation.wants is None:
            form, body = str(wanted.format), b""
        asked = AdminRequest(
            key_digest=key_digest, operation=operation.id, kind=operation.kind, name=found.name,
            match=match, form=form, dry_run=wanted.dry_run == "true", limit=wanted.limit,
            after=wanted.after, customer=wanted.customer, body=body,
        )  # fmt: skip
        told = await self.endpoint.service.requests.ask(asked, AdminReply, SECONDS)
        return responses.succeeded(found, told)

    async def _key_digest(self, found: Matched, headers: Headers, scope: dict[str, Any]) -> str:
        """Who asks. Policy judges it; who may not anyway is not read further."""
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() not in SCHEMES or not secret:
            raise UnauthorizedError("Send an admin key as 'Authorization: Bearer <key>'.")
        if not self.endpoint.service.bus.connected:
            raise bus_down()
        token, identity = token_of(headers), self.endpoint.identity
        if token and identity.administered:
            await identity.meet(token, identity.administration)
        key_digest = key_digest_of(secret.strip().decode("latin-1"))
        known = self.endpoint.directory.administrator(key_digest, time())
        if known is None:
            raise UnauthorizedError("This opens nothing here: it is unknown, revoked or expired.")
        bearer = self.endpoint.directory.bearers.known(hash_of(key_digest))
        if bearer is not None:
            identity.prove(bearer, headers, scope)
        elif scheme.lower() != BEARER:
            raise UnauthorizedError("An admin key is shown as Bearer.")
        known.check(found.operation.right)
        return key_digest

    async def _body(self, found: Matched, headers: Headers, receive: Receive) -> tuple[str, bytes]:
        largest = self.endpoint.largest_body
        announced(headers, largest)
        if found.operation.wants is None:  # what it does is done once the request is whole
            return "", await whole_body(receive, largest)
        form = asking.form_of(headers, found.operation)
        body = await whole_body(receive, largest)
        return form, asking.body_of(body, form, found.operation)


def serves(path: str) -> bool:
    """Whether a path is one of the administration's."""
    return path in ("/api", "/api/", DOCUMENT) or path.startswith("/api/v1")


def _told(path: str, method: str) -> Response:
    if method != "GET":
        return responses.not_allowed(("GET",))
    if path == DOCUMENT:
        return Response(200, openapi.document())
    return Response(200, msgspec.json.encode(WELCOME))
