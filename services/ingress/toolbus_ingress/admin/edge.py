"""`/api`: who administers asks here; policy judges the key and does what its role may.

No cookie is known here: every request carries its own proof, so no other site can make a browser
ask for its user.
"""

from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from toolbus_common.administration.roles import RIGHTS, may
from toolbus_common.bus import bus_down
from toolbus_common.contracts import AdminAsked, AdminTold
from toolbus_common.errors import (
    ForbiddenError,
    OverloadedError,
    ToolbusError,
    UnauthorizedError,
)
from toolbus_common.snapshot import proof_of
from toolbus_ingress.admin import answers, asking, openapi
from toolbus_ingress.admin.asking import Matched
from toolbus_ingress.endpoint import Endpoint, Receive
from toolbus_ingress.guard import Headers, RefusedRequestError, too_large
from toolbus_ingress.jsonrpc import Response

SECONDS = 20.0
DOCUMENT = "/api/openapi.json"
WELCOME = {
    "openapi": DOCUMENT,
    "documentation": "Send an admin key as Authorization: Bearer; 'toolbus admins create' makes "
    "one. Every operation is described in the OpenAPI document.",
}


@dataclass(frozen=True, slots=True)
class Administration:
    """`/api`, `/api/openapi.json` and `/api/v1/…`."""

    endpoint: Endpoint

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """The answer, or None where the path is not of these."""
        path: str = scope["path"]
        if path not in ("/api", "/api/", DOCUMENT) and not path.startswith("/api/v1"):
            return None
        if self.endpoint.crowded:
            return answers.failed(OverloadedError("Too many requests are under way; retry."))
        return await self.endpoint.bounded(scope, self._answered(scope, path, receive))

    async def _answered(self, scope: dict[str, Any], path: str, receive: Receive) -> Response:
        try:
            headers = self.endpoint.guard.headers(scope)
            if not path.startswith("/api/v1"):
                return _told(path, scope["method"])
            found = asking.matched(path, scope["method"])
            if isinstance(found, tuple):
                return answers.not_allowed(found) if found else answers.nothing_here()
            return await self._done(found, headers, scope["query_string"], receive)
        except RefusedRequestError as refusal:
            return answers.refused(refusal)
        except ToolbusError as error:
            return answers.failed(error)

    async def _done(
        self, found: Matched, headers: Headers, query: bytes, receive: Receive
    ) -> Response:
        operation = found.operation
        proof = self._proof(found, headers)
        asking.check_name(found)
        wanted = asking.query_of(query, operation)
        match = asking.match_of(headers) if operation.match else ""
        form, body = str(wanted.format), b""
        if operation.wants is not None:
            form, body = await self._body(found, headers, receive)
        asked = AdminAsked(
            proof=proof, operation=operation.id, kind=operation.kind, name=found.name,
            match=match, form=form, dry_run=wanted.dry_run == "true", limit=wanted.limit,
            after=wanted.after, customer=wanted.customer, body=body,
        )  # fmt: skip
        told = await self.endpoint.room.asks.ask(asked, AdminTold, SECONDS)
        return answers.succeeded(found, told)

    def _proof(self, found: Matched, headers: Headers) -> str:
        """Whose key it is. Policy judges it; who may not anyway is not read further."""
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not secret:
            raise UnauthorizedError("Send an admin key as 'Authorization: Bearer <key>'.")
        if not self.endpoint.room.bus.connected:
            raise bus_down()
        proof = proof_of(secret.strip().decode("latin-1"))
        known = self.endpoint.directory.admin_for(proof, time())
        if known is None:
            raise UnauthorizedError("This admin key opens nothing: unknown, revoked or expired.")
        name, admin = known
        right = found.operation.right
        if right is not None and not may(admin.role, right):
            raise ForbiddenError(f"'{name}' is {admin.role}, and may not {RIGHTS[right]}.")
        return proof

    async def _body(self, found: Matched, headers: Headers, receive: Receive) -> tuple[str, bytes]:
        largest = self.endpoint.largest_body
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > largest:
            raise too_large(largest)
        form = asking.form_of(headers, found.operation)
        body = await self.endpoint.read(receive)
        return form, asking.body_of(body, form, found.operation)


def _told(path: str, method: str) -> Response:
    if method != "GET":
        return answers.not_allowed(("GET",))
    if path == DOCUMENT:
        return Response(200, openapi.document())
    return Response(200, msgspec.json.encode(WELCOME))
