"""Models: the providers with their state and models, and what each of them cost."""

import asyncio
from collections import defaultdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.pages.servers import server_states
from toolbus_ingress.console.visitor import SignedIn, Visitor

PAGE = 200
DAYS = "30d"
_QUERIES = "/api/v1/audit/queries"
_SUMS = ("answered", "input_tokens", "output_tokens", "dollars")
router = APIRouter(prefix="/models")


@router.get("")
async def list_models(visitor: SignedIn) -> Response:
    """Return the providers, and for auditors and admins the use of their models."""
    providers, names, states, spend, latency = await asyncio.gather(
        visitor.api.get("/api/v1/providers", limit=PAGE),
        visitor.api.get("/api/v1/models", limit=PAGE),
        server_states(visitor),
        saved_rows(visitor, "model-spend", since=DAYS),
        saved_rows(visitor, "model-latency", since="24h"),
    )
    sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0.0))
    for row in spend:
        for name in _SUMS:
            sums[row["provider"]][name] += row[name]
    rows = [
        {"name": each["name"], "value": each["value"], "state": states.get(each["name"], {}),
         "sums": sums.get(each["name"])}
        for each in providers["items"]
    ]  # fmt: skip
    return visitor.page(
        "models.html", rows=rows, names=names["items"], latency=latency,
        recorded="audit" in visitor.rights,
    )  # fmt: skip


async def saved_rows(visitor: Visitor, name: str, **parameters: str) -> list[dict[str, Any]]:
    """Return the rows of a saved query; none if the person may not query events."""
    if "audit" not in visitor.rights:
        return []
    body = {"parameters": parameters, "limit": 500}
    reply = (await visitor.api.send("POST", f"{_QUERIES}/{name}", body)).data
    return [dict(zip(reply["columns"], row, strict=True)) for row in reply["rows"]]
