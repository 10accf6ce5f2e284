"""Operations of administrators on the cache of model responses."""

from typing import Annotated

import msgspec
from fastapi import Query
from starlette.responses import Response

from toolbus_common.admin_api.models import CachePurge
from toolbus_common.contracts import CachedResponsesReply, PurgeCacheReply
from toolbus_common.contracts.queries.model_cache import MAX_SHOWN
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("cache")

Selection = Annotated[str, Query(max_length=400, description="Only entries of this one.")]


@router.get("", response_model=CachedResponsesReply)
async def show_cache(
    call: Annotated[PolicyCall, performs("show_cache")],
    customer: Selection = "",
    provider: Selection = "",
    model: Selection = "",
    key: Selection = "",
    entry: Selection = "",
    limit: Annotated[int, Query(ge=1, le=MAX_SHOWN)] = 100,
) -> Response:
    """List cached responses of models without their content, newest first, and their totals."""
    selected = {
        "customer": customer, "provider": provider, "model": model, "key": key, "entry": entry,
    }  # fmt: skip
    return await call.run(body=msgspec.json.encode(selected), form="json", limit=limit)


@router.post("/purge", response_model=PurgeCacheReply)
async def purge_cache(
    call: Annotated[PolicyCall, performs("purge_cache", body=CachePurge)],
) -> Response:
    """Remove cached responses of models, also those of requests in progress."""
    return await call.run()
