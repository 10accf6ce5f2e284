"""Administration operations on the cache of model responses."""

import json
from typing import Any

import pytest

from toolbus_common.access.administrators import Administrator, of_key
from toolbus_common.config import Admin, Role
from toolbus_common.contracts import (
    AdminRequest,
    CachedResponsesQuery,
    CachedResponsesReply,
    PurgeCacheReply,
    PurgeCacheRequest,
)
from toolbus_common.errors import ForbiddenError, InvalidError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions
from toolbus_policy.admin.service import AdminService

SENT: list[Any] = []


def service(role: Role) -> AdminService:
    """Return the service for an administrator with this role. Queries to executor are in `SENT`."""
    unused: Any = None
    SENT.clear()

    async def ann(_key_digest: str) -> Administrator:
        return of_key("ann", Admin(role=role))

    async def executor(query: Any, reply: Any) -> Any:
        SENT.append(query)
        return reply(removed=3) if reply is PurgeCacheReply else CachedResponsesReply(more=True)

    return AdminService(ann, unused, unused, unused, RemoteRestrictions(), executor, unused, ())


def requested(operation: str, body: bytes, **fields: Any) -> AdminRequest:
    return AdminRequest(key_digest="p", operation=operation, body=body, **fields)


async def test_an_operator_purges_the_selected_responses() -> None:
    body = b'{"customer": "acme", "model": "m"}'
    reply = await service("operator").handle(requested("purge_cache", body))
    assert json.loads(reply.body) == {"removed": 3}
    (sent,) = SENT
    assert sent == PurgeCacheRequest(customer="acme", model="m", by="admin:ann")


async def test_a_viewer_sees_the_cache_and_cannot_purge_it() -> None:
    viewer = service("viewer")
    with pytest.raises(ForbiddenError):
        await viewer.handle(requested("purge_cache", b'{"everything": true}'))
    assert SENT == []
    reply = await viewer.handle(requested("show_cache", b'{"key": "bot"}', limit=7))
    assert json.loads(reply.body)["more"] is True
    assert [CachedResponsesQuery(key="bot", limit=7)] == SENT


@pytest.mark.parametrize("body", [b'{"modle": "m"}', b'{"everything": "yes"}', b"[]"])
async def test_an_invalid_selection_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidError):
        await service("admin").handle(requested("purge_cache", body))
    assert SENT == []
