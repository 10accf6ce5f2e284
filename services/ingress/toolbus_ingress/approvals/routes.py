"""Endpoints for API keys that may approve: list and decide approvals (`/api/approvals`)."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response

from toolbus_common import strict_json
from toolbus_common.contracts import ApprovalsReply, ApprovalState
from toolbus_common.errors import InvalidError
from toolbus_ingress.approvals.policy_query import APPROVE, REJECT, SHOW, ask_policy, read_body
from toolbus_ingress.rest.application import ServedEndpoint, json_answer
from toolbus_ingress.rest.openapi import problems, request_body
from toolbus_ingress.rest.parameters import reject_unknown_parameters

APPROVER = HTTPBearer(
    scheme_name="approver",
    description="An API key or access token that may approve calls.",
    auto_error=False,
)
NOTE = {
    "type": "object",
    "properties": {"note": {"type": "string"}, "reason": {"type": "string"}},
    "additionalProperties": {"type": "string"},
    "example": {"reason": "Not today."},
}
_PROBLEMS = problems(400, 401, 403, 404, 431, 503, on_404="No pending approval has this id.")
_DECIDED: dict[str, Any] = {
    "response_model": ApprovalState,
    "responses": _PROBLEMS | problems(408, 413),
    "openapi_extra": {"requestBody": request_body(NOTE, required=False)},
}
router = APIRouter(
    prefix="/api/approvals",
    tags=["approvals"],
    dependencies=[Depends(reject_unknown_parameters)],
    responses=_PROBLEMS,
)

ApprovalId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


async def authenticated(
    request: Request, endpoint: ServedEndpoint, _credential: Annotated[object, Security(APPROVER)]
) -> str:
    """Return the digest of the caller's credential. Raises the errors of `Endpoint.authenticate`.

    No cookies are used: every request carries its own credential, so no other site can make a
    browser act for its user.
    """
    scope = request.scope
    headers = endpoint.guard.headers(scope)
    await endpoint.verify_token(headers)
    return endpoint.authenticate(headers, scope, "").key_digest


KeyDigest = Annotated[str, Security(authenticated)]


@router.get("", response_model=ApprovalsReply)
async def list_pending_approvals(endpoint: ServedEndpoint, key_digest: KeyDigest) -> Response:
    """List the calls that wait for approval and that the key may see."""
    reply = await ask_policy(endpoint, key_digest, SHOW, "")
    return json_answer(msgspec.json.encode(reply.model_dump()))


@router.get("/{approval:approval}", response_model=ApprovalState)
async def show_pending_approval(
    endpoint: ServedEndpoint, key_digest: KeyDigest, approval: ApprovalId
) -> Response:
    """Return one approval, with the arguments of its call."""
    return _state(await ask_policy(endpoint, key_digest, SHOW, approval))


@router.post("/{approval:approval}/approve", **_DECIDED)
async def approve_pending_call(
    request: Request, endpoint: ServedEndpoint, key_digest: KeyDigest, approval: ApprovalId
) -> Response:
    """Approve a call: it may run once."""
    note = await _note(endpoint, request)
    return _state(await ask_policy(endpoint, key_digest, APPROVE, approval, note))


@router.post("/{approval:approval}/reject", **_DECIDED)
async def reject_pending_call(
    request: Request, endpoint: ServedEndpoint, key_digest: KeyDigest, approval: ApprovalId
) -> Response:
    """Reject a call; the caller receives the reason."""
    note = await _note(endpoint, request)
    return _state(await ask_policy(endpoint, key_digest, REJECT, approval, note))


async def _note(endpoint: ServedEndpoint, request: Request) -> str:
    """Return the note in a body such as `{"reason": "Not today."}`; any content type is accepted.

    Raises:
        InvalidError: the body is not a strict JSON object of texts.
        RejectedRequestError: the body is too large or incomplete.

    """
    body = await read_body(endpoint.guard.headers(request.scope), request.receive)
    try:
        fields = strict_json.typed(body or b"{}", dict[str, str])
    except strict_json.StrictJSONError as error:
        raise InvalidError(
            f'The body must have the form {{"note": "…"}} or {{"reason": "…"}}: {error}.'
        ) from error
    return fields.get("reason", fields.get("note", ""))


def _state(reply: ApprovalsReply) -> Response:
    return json_answer(msgspec.json.encode(reply.approvals[0].model_dump()))
