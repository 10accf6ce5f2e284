"""Approvals over HTTP: a page for people, and an API for programs.

No cookies are used: every request carries its own credential, so no other site can make a browser
act for its user. Policy alone checks the key's right to approve, and decides.
"""

import asyncio
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
from toolbus_common.web import html
from toolbus_common.web.json_view import visible
from toolbus_ingress.approvals import page
from toolbus_ingress.auth.dpop import challenge_headers, rejection_code
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    Headers,
    check_content_length,
    read_request_body,
    rejected,
)
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import Claims, ClaimSealer

TICKET_SECONDS = 600.0
LARGEST_BODY = 16 * 1024
_PAGE = re.compile(r"/approvals/([0-9a-f]{32})")
_API = re.compile(r"/api/approvals(?:/([0-9a-f]{32})(?:/(approve|reject))?)?")
_FORM = b"application/x-www-form-urlencoded"


class TicketClaims(Claims, frozen=True):
    """The approval that was shown to a key on the page; valid for a decision until `expires`."""

    key_digest: str
    approval: str
    expires: float


@dataclass(frozen=True, slots=True)
class Approvals:
    """`/approvals/<id>` and `/api/approvals`."""

    endpoint: Endpoint
    sealer: ClaimSealer

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """Answer a request; None for another path."""
        path: str = scope["path"]
        if (match := _PAGE.fullmatch(path)) is not None:
            work = self._page(scope, match[1], receive)
        elif (match := _API.fullmatch(path)) is not None:
            work = self._api(scope, match[1] or "", match[2] or "show", receive)
        else:
            return None
        return await self.endpoint.run_limited(scope, work)

    # -- the page ----------------------------------------------------------------------------

    async def _page(self, scope: dict[str, Any], approval: str, receive: Receive) -> Response:
        headers = self.endpoint.guard.headers(scope)
        await asyncio.to_thread(html.load)
        if scope["method"] == "GET":
            return page.sign_in()
        if scope["method"] != "POST":
            raise rejected("method", 405, "Method not allowed. Use GET or POST.")
        form = await self._form(headers, receive)
        if form.get("action", "show") == "show":
            return await self._show(form.get("key", "").strip(), approval)
        ticket = self.sealer.open(form.get("ticket"), TicketClaims)
        if ticket is None or ticket.approval != approval or ticket.expires < time():
            return page.sign_in("This page has expired. Open the approval again.", 403)
        return await self._decide(ticket, form)

    async def _show(self, key: str, approval: str, message: str = "") -> Response:
        try:
            key_digest = await self.endpoint.protected_resource.form_key_digest(key)
            (approval_state,) = (await self._ask(key_digest, "show", approval)).approvals
        except ToolbusError as error:
            return page.sign_in(error.reason, _status(error))
        if approval_state.state != "pending":
            return page.message(
                f"This approval is no longer pending: it is {approval_state.state}."
            )
        ticket = self.sealer.close(TicketClaims(key_digest, approval, time() + TICKET_SECONDS))
        return page.decision(approval_state, ticket, message)

    async def _decide(self, ticket: TicketClaims, form: dict[str, str]) -> Response:
        action, note = form.get("action", ""), form.get("note", "")
        try:
            (approval_state,) = (
                await self._ask(ticket.key_digest, action, ticket.approval, note)
            ).approvals
        except ToolbusError as error:
            return page.message(error.reason, _status(error))
        done = {
            "granted": "Approved: the call may run once, now or when it is repeated.",
            "rejected": "Rejected: the caller receives your reason.",
        }
        return page.message(done.get(approval_state.state, approval_state.state))

    async def _form(self, headers: Headers, receive: Receive) -> dict[str, str]:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != _FORM:
            raise rejected(
                "content_type",
                415,
                "Unsupported content type. Send the form as application/x-www-form-urlencoded.",
            )
        body = await self._body(headers, receive)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise InvalidError("The form is malformed. Send it as a browser does.") from error
        return {name: values[-1] for name, values in fields.items()}

    # -- the API -----------------------------------------------------------------------------

    async def _api(
        self, scope: dict[str, Any], approval: str, action: str, receive: Receive
    ) -> Response:
        try:
            headers = self.endpoint.guard.headers(scope)
            if scope["method"] != ("GET" if action == "show" else "POST"):
                raise rejected(
                    "method",
                    405,
                    "Method not allowed. Show approvals with GET; approve and reject with POST.",
                )
            await self.endpoint.verify_token(headers)
            key_digest = self.endpoint.authenticate(headers, scope, "").key_digest
            note = "" if action == "show" else _note(await self._body(headers, receive))
            reply = await self._ask(key_digest, action, approval, note)
        except ToolbusError as error:
            return _error_response(error)
        shown: Any = reply.model_dump() if not approval else reply.approvals[0].model_dump()
        return Response(200, msgspec.json.encode(shown), ((b"cache-control", b"no-store"),))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        check_content_length(headers, LARGEST_BODY)
        return await read_request_body(receive, LARGEST_BODY)

    async def _ask(
        self, key_digest: str, action: str, approval: str, note: str = ""
    ) -> ApprovalsReply:
        if action not in ("show", "approve", "reject"):
            raise InvalidError("Unknown decision. Use approve or reject.")
        request = ApproverRequest(
            key_digest=key_digest, action=action, id=approval, note=visible(note.strip())
        )
        return await self.endpoint.service.requests.request(request, ApprovalsReply)


def _note(body: bytes) -> str:
    """Return the note of a body such as `{"reason": "Not today."}`. Raises `InvalidError`."""
    try:
        fields = strict_json.typed(body or b"{}", dict[str, str])
    except strict_json.StrictJSONError as error:
        raise InvalidError(
            f'The body must have the form {{"note": "…"}} or {{"reason": "…"}}: {error}.'
        ) from error
    return fields.get("reason", fields.get("note", ""))


def _status(error: ToolbusError) -> int:
    if isinstance(error, InvalidError):
        return jsonrpc.BAD_REQUEST
    return jsonrpc.failure(error).status


def _error_response(error: ToolbusError) -> Response:
    members = {"code": error.code, "reason": error.reason, "retryable": error.retryable}
    headers: tuple[tuple[bytes, bytes], ...] = ((b"cache-control", b"no-store"),)
    if isinstance(error, UnauthorizedError):
        headers += challenge_headers(error, b"", b"")
    return Response(
        _status(error), msgspec.json.encode({"error": members}), headers, rejection_code(error)
    )
