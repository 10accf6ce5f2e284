"""Operations on the keys of clients."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.models import (
    ExplainedCall,
    KeyNamed,
    KeyResponse,
    KeysResponse,
    Revoked,
    SecretResponse,
)
from toolbus_common.config import KeyTerms
from toolbus_common.contracts import Explanation
from toolbus_ingress.admin_api.parameters import After, Limit, Name, Search
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("keys")


@router.get("", response_model=KeysResponse)
async def list_keys(
    call: Annotated[PolicyCall, performs("list_keys")],
    limit: Limit = 100,
    after: After = "",
    search: Search = "",
) -> Response:
    """List the keys of clients, page by page."""
    return await call.run(limit=limit, after=after, search=search)


@router.post("", response_model=SecretResponse, status_code=201)
async def create_key(
    call: Annotated[PolicyCall, performs("create_key", body=KeyNamed)],
) -> Response:
    """Create a key; its secret is returned once."""
    return await call.run()


@router.get("/{name}", response_model=KeyResponse)
async def show_key(call: Annotated[PolicyCall, performs("show_key")], name: Name) -> Response:
    """Return one key."""
    return await call.run(name=name)


@router.put("/{name}", response_model=KeyResponse)
async def replace_key(
    call: Annotated[PolicyCall, performs("replace_key", body=KeyTerms)], name: Name
) -> Response:
    """Replace a key's terms, not its secret."""
    return await call.run(name=name)


@router.post("/{name}/rotate", response_model=SecretResponse)
async def rotate_key(call: Annotated[PolicyCall, performs("rotate_key")], name: Name) -> Response:
    """Replace a key's secret; the new secret is returned once. This re-enables a revoked key."""
    return await call.run(name=name)


@router.post("/{name}/revoke", response_model=Revoked)
async def revoke_key(call: Annotated[PolicyCall, performs("revoke_key")], name: Name) -> Response:
    """Revoke a key on every replica."""
    return await call.run(name=name)


@router.post("/{name}/explain", response_model=Explanation)
async def show_explanation(
    call: Annotated[PolicyCall, performs("show_explanation", body=ExplainedCall)], name: Name
) -> Response:
    """Explain how a call with this key would be decided, and why; nothing is called or recorded."""
    return await call.run(name=name)
