"""Commands that show and purge the cache of model responses."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.config_client import me
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.contracts import (
    CachedResponse,
    CachedResponsesQuery,
    CachedResponsesReply,
    PurgeCacheReply,
    PurgeCacheRequest,
)
from toolbus_common.contracts.model_calls import SEPARATOR
from toolbus_common.contracts.queries.model_cache import MAX_SHOWN
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SECONDS = 30.0
COLUMNS = ("entry", "customer", "model", "key", "written", "bytes", "similar requests")

Customer = Annotated[str, typer.Option(help="Only responses for this customer.")]
Model = Annotated[
    str, typer.Option(help="Only responses of this model (provider/model), or of a provider.")
]
Key = Annotated[str, typer.Option(help="Only responses to requests of this API key.")]
Entry = Annotated[str, typer.Option(help="Only the entry with this 'x-toolbus-cache-key'.")]


def show(
    *,
    customer: Customer = "",
    model: Model = "",
    key: Key = "",
    entry: Entry = "",
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_SHOWN, help="Maximum number of entries.")
    ] = 100,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show cached responses of models, the newest first, without their content."""
    provider, _, name = model.partition(SEPARATOR)
    query = CachedResponsesQuery(
        customer=customer, provider=provider, model=name, key=key, entry=entry, limit=limit
    )
    reply = asyncio.run(_shown(state_dir, query))
    if as_json:
        show_json(reply.model_dump())
        return
    show_table(COLUMNS, [_row(each) for each in reply.responses], "No response is cached.")
    say(
        *(
            f"{each.customer}, {each.provider}: {each.entries} responses, {each.bytes} bytes"
            for each in reply.totals
        )
    )


def purge(
    *,
    customer: Customer = "",
    model: Model = "",
    key: Key = "",
    entry: Entry = "",
    everything: Annotated[bool, typer.Option("--all", help="Remove all responses.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Remove cached responses of models, also those of requests in progress."""
    selected = any((customer, model, key, entry))
    if selected == everything:
        raise CommandError(
            "Select the responses with --customer, --model, --key or --entry, or remove all of "
            "them with --all."
        )
    provider, _, name = model.partition(SEPARATOR)
    request = PurgeCacheRequest(
        customer=customer, provider=provider, model=name, key=key, entry=entry,
        everything=everything, by=me(),
    )  # fmt: skip
    reply = asyncio.run(_purged(state_dir, request))
    if as_json:
        show_json(reply.model_dump())
    else:
        say(f"Removed {reply.removed} cached responses.")


async def _shown(state_dir: Path, query: CachedResponsesQuery) -> CachedResponsesReply:
    async with joined(find(state_dir)) as bus:
        return await RequestReply(OPERATOR, bus).request(query, CachedResponsesReply, SECONDS)


async def _purged(state_dir: Path, request: PurgeCacheRequest) -> PurgeCacheReply:
    async with joined(find(state_dir)) as bus:
        return await RequestReply(OPERATOR, bus).request(request, PurgeCacheReply, SECONDS)


def _row(each: CachedResponse) -> tuple[str, ...]:
    written = datetime.fromtimestamp(each.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return (
        each.entry, each.customer, f"{each.provider}{SEPARATOR}{each.model}", each.key, written,
        str(each.bytes), "yes" if each.semantic else "no",
    )  # fmt: skip
