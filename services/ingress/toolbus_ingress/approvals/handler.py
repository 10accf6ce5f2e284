"""Approvals over HTTP: a page for people, and an API for programs, both for keys with the right.

Neither knows cookies: every request carries its own proof of who asks, so no other site can make
a browser ask for its user. Policy alone judges the key and decides.
"""

import re
from dataclasses import dataclass
from time import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import ApprovalsReply, ApproverRequest
from toolbus_common.errors import InvalidError, ToolbusError, UnauthorizedError
from toolbus_common.http_server.body import Receive
from toolbus_common.web.json_view import visible
from toolbus_ingress.approvals import page
from toolbus_ingress.auth.dpop import challenged, rejection
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, announced, refused, whole_body
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import Claims, Seal

TICKET_SECONDS = 600.0
LARGEST_BODY = 16 * 1024
_PAGE = re.compile(r"/approvals/([0-9a-f]{32})")
_API = re.compile(r"/api/approvals(?:/([0-9a-f]{32})(?:/(approve|reject))?)?")
_FORM = b"application/x-www-form-urlencoded"


class TicketClaims(Claims, frozen=True):
    """Who was shown an approval on the page, and which; good for a decision until `expires`."""

    key_digest: str
    approval: str
    expires: float


@dataclass(frozen=True, slots=True)
class Approvals:
    """`/approvals/<id>` and `/api/approvals`."""

    endpoint: Endpoint
    seal: Seal

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """The answer, or None where the path is not of these."""
        path: str = scope["path"]
        if (match := _PAGE.fullmatch(path)) is not None:
            work = self._page(scope, match[1], receive)
        elif (match := _API.fullmatch(path)) is not None:
            work = self._api(scope, match[1] or "", match[2] or "show", receive)
        else:
            return None
        return await self.endpoint.bounded(scope, work)

    # -- the page ----------------------------------------------------------------------------

    async def _page(self, scope: dict[str, Any], approval: str, receive: Receive) -> Response:
        headers = self.endpoint.guard.headers(scope)
        if scope["method"] == "GET":
            return page.sign_in()
        if scope["method"] != "POST":
            raise refused("method", 405, "This page answers GET and POST.")
        form = await self._form(headers, receive)
        if form.get("wish", "show") == "show":
            return await self._shown(form.get("key", "").strip(), approval)
        ticket = self.seal.open(form.get("ticket"), TicketClaims)
        if ticket is None or ticket.approval != approval or ticket.expires < time():
            return page.sign_in("This page is too old to decide on; show the call again.", 403)
        return await self._decided(ticket, form)

    async def _shown(self, key: str, approval: str, sentence: str = "") -> Response:
        try:
            key_digest = await self.endpoint.identity.typed(key)
            (told,) = (await self._ask(key_digest, "show", approval)).approvals
        except ToolbusError as error:
            return page.sign_in(error.reason, _status(error))
        if told.state != "pending":
            return page.ended(f"This approval no longer waits: it is {told.state}.")
        ticket = self.seal.close(TicketClaims(key_digest, approval, time() + TICKET_SECONDS))
        return page.decision(told, ticket, sentence)

    async def _decided(self, ticket: TicketClaims, form: dict[str, str]) -> Response:
        wish, note = form.get("wish", ""), form.get("note", "")
        try:
            (told,) = (await self._ask(ticket.key_digest, wish, ticket.approval, note)).approvals
        except ToolbusError as error:
            return page.ended(error.reason, _status(error))
        done = {
            "granted": "Approved: the call goes through once, now or when it is made again.",
            "rejected": "Rejected: the caller is told so, with your reason.",
        }
        return page.ended(done.get(told.state, told.state))

    async def _form(self, headers: Headers, receive: Receive) -> dict[str, str]:
        told = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if told != _FORM:
            raise refused("content_type", 415, "Send the form as a browser does.")
        body = await self._body(headers, receive)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise InvalidError("The form cannot be read; send it as a browser does.") from error
        return {name: values[-1] for name, values in fields.items()}

    # -- the API -----------------------------------------------------------------------------

    async def _api(
        self, scope: dict[str, Any], approval: str, wish: str, receive: Receive
    ) -> Response:
        try:
            headers = self.endpoint.guard.headers(scope)
            if scope["method"] != ("GET" if wish == "show" else "POST"):
                raise refused("method", 405, "Look with GET; approve and reject with POST.")
            await self.endpoint.introduce(headers)
            key_digest = self.endpoint.authenticate(headers, scope, "").key_digest
            note = "" if wish == "show" else _note(await self._body(headers, receive))
            told = await self._ask(key_digest, wish, approval, note)
        except ToolbusError as error:
            return _failed(error)
        shown: Any = told.model_dump() if not approval else told.approvals[0].model_dump()
        return Response(200, msgspec.json.encode(shown), ((b"cache-control", b"no-store"),))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        announced(headers, LARGEST_BODY)
        return await whole_body(receive, LARGEST_BODY)

    async def _ask(
        self, key_digest: str, wish: str, approval: str, note: str = ""
    ) -> ApprovalsReply:
        if wish not in ("show", "approve", "reject"):
            raise InvalidError("Approve or reject.")
        asked = ApproverRequest(
            key_digest=key_digest, wish=wish, id=approval, note=visible(note.strip())
        )
        return await self.endpoint.service.requests.ask(asked, ApprovalsReply)


def _note(body: bytes) -> str:
    """The note or reason in a body such as `{"reason": "Not today."}`. Raises `InvalidError`."""
    try:
        told = strict_json.typed(body or b"{}", dict[str, str])
    except strict_json.StrictJSONError as error:
        raise InvalidError(
            f'The body must be as {{"note": "…"}} or {{"reason": "…"}}; it is {error}.'
        ) from error
    return told.get("reason", told.get("note", ""))


def _status(error: ToolbusError) -> int:
    if isinstance(error, InvalidError):
        return jsonrpc.BAD_REQUEST
    return jsonrpc.failure(error).status


def _failed(error: ToolbusError) -> Response:
    told = {"code": error.code, "reason": error.reason, "retryable": error.retryable}
    headers: tuple[tuple[bytes, bytes], ...] = ((b"cache-control", b"no-store"),)
    if isinstance(error, UnauthorizedError):
        headers += challenged(error, b"", b"")
    return Response(_status(error), msgspec.json.encode({"error": told}), headers, rejection(error))
