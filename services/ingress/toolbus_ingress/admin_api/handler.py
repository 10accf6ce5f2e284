"""`/api`: administration over HTTP; policy checks the key and executes the operation.

No cookies are used: every request carries its own credential, so no other site can make a browser
act for its user.
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
from toolbus_ingress.admin_api import request as request_parser
from toolbus_ingress.admin_api.request import Matched
from toolbus_ingress.auth.dpop import BEARER, SCHEMES
from toolbus_ingress.auth.protected_resource import token_of
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    Headers,
    RejectedRequestError,
    check_content_length,
    read_request_body,
)
from toolbus_ingress.mcp.endpoint import Endpoint

SECONDS = 20.0
DOCUMENT = "/api/openapi.json"
WELCOME = {
    "openapi": DOCUMENT,
    "documentation": "Send an admin key as Authorization: Bearer; 'toolbus admins create' creates "
    "one. People whose access rule has a role send their access token. The OpenAPI document "
    "describes every operation.",
}


@dataclass(frozen=True, slots=True)
class AdminApi:
    """`/api`, `/api/openapi.json` and `/api/v1/…`."""

    endpoint: Endpoint

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """Answer a request; None for another path."""
        path: str = scope["path"]
        if not serves(path):
            return None
        if self.endpoint.overloaded:
            return responses.failure(OverloadedError("Too many requests are in flight. Retry."))
        return await self.endpoint.run_limited(scope, self._answer(scope, path, receive))

    async def _answer(self, scope: dict[str, Any], path: str, receive: Receive) -> Response:
        try:
            headers = self.endpoint.guard.headers(scope)
            if not path.startswith("/api/v1"):
                return _description(path, scope["method"])
            found = request_parser.match_operation(path, scope["method"])
            if isinstance(found, tuple):
                return responses.method_not_allowed(found) if found else responses.not_found()
            return await self._execute(found, headers, scope, receive)
        except RejectedRequestError as error:
            return responses.rejection(error)
        except ToolbusError as error:
            return responses.failure(error, self.endpoint.protected_resource.admin_challenge)

    async def _execute(
        self, found: Matched, headers: Headers, scope: dict[str, Any], receive: Receive
    ) -> Response:
        operation = found.operation
        key_digest = await self._key_digest(found, headers, scope)
        request_parser.check_name(found)
        query = request_parser.parse_query(scope["query_string"], operation)
        match = request_parser.if_match(headers) if operation.match else ""
        form, body = await self._body(found, headers, receive)
        if operation.wants is None:
            form, body = str(query.format), b""
        request = AdminRequest(
            key_digest=key_digest, operation=operation.id, kind=operation.kind, name=found.name,
            match=match, form=form, dry_run=query.dry_run == "true", limit=query.limit,
            after=query.after, customer=query.customer, body=body,
        )  # fmt: skip
        reply = await self.endpoint.service.requests.request(request, AdminReply, SECONDS)
        return responses.success(found, reply)

    async def _key_digest(self, found: Matched, headers: Headers, scope: dict[str, Any]) -> str:
        """Return the digest of the administrator's credential.

        Policy checks it again; this check only avoids reading further from a caller without rights.
        """
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() not in SCHEMES or not secret:
            raise UnauthorizedError(
                "No credential was sent. Send an admin key as 'Authorization: Bearer <key>'."
            )
        if not self.endpoint.service.bus.connected:
            raise bus_down()
        token, protected_resource = token_of(headers), self.endpoint.protected_resource
        if token and protected_resource.admin_enabled:
            await protected_resource.verify(token, protected_resource.admin_resource)
        key_digest = key_digest_of(secret.strip().decode("latin-1"))
        known = self.endpoint.directory.administrator(key_digest, time())
        if known is None:
            raise UnauthorizedError("Invalid, revoked or expired admin key or access token.")
        bearer = self.endpoint.directory.bearers.known(hash_of(key_digest))
        if bearer is not None:
            protected_resource.check_proof(bearer, headers, scope)
        elif scheme.lower() != BEARER:
            raise UnauthorizedError(
                "Wrong scheme for an admin key. Send it as 'Authorization: Bearer <key>'."
            )
        known.check(found.operation.right)
        return key_digest

    async def _body(self, found: Matched, headers: Headers, receive: Receive) -> tuple[str, bytes]:
        largest = self.endpoint.largest_body
        check_content_length(headers, largest)
        if found.operation.wants is None:  # it runs only once the request is complete
            return "", await read_request_body(receive, largest)
        form = request_parser.body_format(headers, found.operation)
        body = await read_request_body(receive, largest)
        return form, request_parser.canonical_body(body, form, found.operation)


def serves(path: str) -> bool:
    """Return whether a path belongs to the administration API."""
    return path in ("/api", "/api/", DOCUMENT) or path.startswith("/api/v1")


def _description(path: str, method: str) -> Response:
    if method != "GET":
        return responses.method_not_allowed(("GET",))
    if path == DOCUMENT:
        return Response(200, openapi.document())
    return Response(200, msgspec.json.encode(WELCOME))
