"""The approval page: a person sees one call, and approves or rejects it.

No cookies are used: every request carries its own credential, so no other site can make a browser
act for its user. Policy alone checks the key's right to approve, and decides.
"""

import asyncio
import re
from dataclasses import dataclass
from time import time
from typing import Any
from urllib.parse import parse_qs

from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.web import html
from toolbus_ingress.approvals import page
from toolbus_ingress.approvals.policy_query import ask_policy, read_body
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import (
    Headers,
    rejected,
)
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import Claims, ClaimSealer

TICKET_SECONDS = 600.0
_PAGE = re.compile(r"/approvals/([0-9a-f]{32})")
_FORM = b"application/x-www-form-urlencoded"


class TicketClaims(Claims, frozen=True):
    """The approval that was shown to a key on the page; valid for a decision until `expires`."""

    key_digest: str
    approval: str
    expires: float


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """The handler of `/approvals/<id>`."""

    endpoint: Endpoint
    sealer: ClaimSealer

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Response | None:
        """Return the response to a request; None for any other path."""
        path: str = scope["path"]
        match = _PAGE.fullmatch(path)
        if match is None:
            return None
        return await self.endpoint.run_limited(scope, self._page(scope, match[1], receive))

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
            (approval_state,) = (
                await ask_policy(self.endpoint, key_digest, "show", approval)
            ).approvals
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
                await ask_policy(self.endpoint, ticket.key_digest, action, ticket.approval, note)
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
        body = await read_body(headers, receive)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise InvalidError("The form is malformed. Send it as a browser does.") from error
        return {name: values[-1] for name, values in fields.items()}


def _status(error: ToolbusError) -> int:
    if isinstance(error, InvalidError):
        return jsonrpc.BAD_REQUEST
    return jsonrpc.failure(error).status
