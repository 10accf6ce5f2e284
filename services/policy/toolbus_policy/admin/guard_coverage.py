"""The coverage of guards for administrators: recorded checks compared with the configuration."""

from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from toolbus_common.admin_api.models import CoverageSelection
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AdminRequest, GuardChecksQuery, RowsReply
from toolbus_common.guards.coverage import Coverage, selected
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.request_parser import parse_body

SECONDS = 18.0  # shorter than the timeout of ingress
MOST_UNGUARDED = 1000


async def guard_coverage(
    repository: ConfigRepository, request: AdminRequest, send: Callable[..., Awaitable[Any]]
) -> dict[str, Any]:
    """Return one page of the shares of calls that each guard checked.

    The shares are sorted by customer, key, tool, phase and guard.

    Raises `InvalidError` if the selection is invalid or too large, and `UnavailableError` if audit
    does not reply.
    """
    chosen = parse_body(CoverageSelection, request.body)
    now, own = await repository.declared(), await repository.own_keys()
    found = Coverage(now.configuration, own)
    query = GuardChecksQuery(since=time() - chosen.seconds, revision=now.revision)
    reply = await send(query, RowsReply, SECONDS)
    found.add_rows(reply, lambda row: selected(row, chosen.key, chosen.tool))
    shares = {
        f"{each.customer} {each.key} {each.tool} {each.phase} {each.guard}": each
        for each in found.shares()
        if each.is_gap or not chosen.gaps
    }
    unguarded = [
        dict(zip(("customer", "key", "tool", "calls"), each, strict=True))
        for each in sorted(found.unguarded())
    ]
    return {
        **page(shares, lambda name: shares[name].as_data, request),
        "gaps": len(found.gaps()),
        "without_guards": unguarded[:MOST_UNGUARDED],
        "unknown_keys": sorted(found.unknown_keys),
        "complete": not reply.more and len(unguarded) <= MOST_UNGUARDED,
        "revision": now.revision,
    }
