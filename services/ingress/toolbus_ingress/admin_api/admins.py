"""Operations that show the caller's rights, and operations on admin keys."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.models import (
    AdminNamed,
    AdminsResponse,
    CallerResponse,
    Revoked,
    SecretResponse,
)
from toolbus_ingress.admin_api.parameters import After, Limit, Name, Search
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

own_router = administration("self")
router = administration("admins")


@own_router.get("", response_model=CallerResponse)
async def who_am_i(call: Annotated[PolicyCall, performs("who_am_i")]) -> Response:
    """Return the caller's name, role and rights."""
    return await call.run()


@router.get("", response_model=AdminsResponse)
async def list_admins(
    call: Annotated[PolicyCall, performs("list_admins")],
    limit: Limit = 100,
    after: After = "",
    search: Search = "",
) -> Response:
    """List the admin keys, page by page."""
    return await call.run(limit=limit, after=after, search=search)


@router.post("", response_model=SecretResponse, status_code=201)
async def create_admin(
    call: Annotated[PolicyCall, performs("create_admin", body=AdminNamed)],
) -> Response:
    """Create an admin key; its secret is returned once."""
    return await call.run()


@router.post("/{name}/revoke", response_model=Revoked)
async def revoke_admin(
    call: Annotated[PolicyCall, performs("revoke_admin")], name: Name
) -> Response:
    """Revoke an admin key immediately, on every replica."""
    return await call.run(name=name)
