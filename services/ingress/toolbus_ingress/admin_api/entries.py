"""Entries of the configuration by name: the same four operations for every kind."""

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_common.admin_api.models import BY_PATTERN, ENTRIES, KINDS, noun_of
from toolbus_ingress.admin_api.parameters import (
    After,
    IfMatch,
    Limit,
    Name,
    Pattern,
    Search,
    revision,
)
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs


def router_of(kind: str) -> APIRouter:
    """Return the operations of a kind of entries, such as `list_servers` and `put_server`."""
    router, noun = administration(kind), noun_of(kind)
    entry, page = ENTRIES[kind]
    by_pattern = kind in BY_PATTERN
    one = "/{name:pattern}" if by_pattern else "/{name}"
    EntryName: Any = Pattern if by_pattern else Name  # noqa: N806 - a type

    @router.get(
        "", name=f"list_{kind}", summary=f"List the {kind}, page by page.", response_model=page
    )
    async def list_entries(
        call: Annotated[PolicyCall, performs("list_entries", kind)],
        limit: Limit = 100,
        after: After = "",
        search: Search = "",
    ) -> Response:
        return await call.run(limit=limit, after=after, search=search)

    @router.get(
        one, name=f"show_{noun}", summary=f"Return one of the {kind}.", response_model=entry
    )
    async def show_entry(
        call: Annotated[PolicyCall, performs("show_entry", kind)], name: EntryName
    ) -> Response:
        return await call.run(name=name)

    @router.put(
        one,
        name=f"put_{noun}",
        summary=f"Create or replace one of the {kind}.",
        response_model=entry,
    )
    async def put_entry(
        call: Annotated[PolicyCall, performs("put_entry", kind, KINDS[kind])],
        name: EntryName,
        if_match: IfMatch = "",
    ) -> Response:
        return await call.run(name=name, match=revision(if_match))

    @router.delete(
        one, name=f"delete_{noun}", summary=f"Delete one of the {kind}.", status_code=204
    )
    async def delete_entry(
        call: Annotated[PolicyCall, performs("delete_entry", kind)],
        name: EntryName,
        if_match: IfMatch = "",
    ) -> Response:
        return await call.run(name=name, match=revision(if_match))

    return router
