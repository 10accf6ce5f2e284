"""Commands that show budgets and rebuild their counters from events."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.config_client import me
from toolbus_cli.installation import find, joined
from toolbus_common.config import MICRO
from toolbus_common.contracts import (
    BudgetState,
    LedgerQuery,
    LedgerReply,
    RebuildReply,
    RebuildRequest,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SHOW_SECONDS = 20.0
REBUILD_SECONDS = 600.0
COLUMNS = ("customer", "level", "per", "tools", "limit", "spent", "reserved", "debt", "resets at")
Scope = Annotated[
    str,
    typer.Argument(
        metavar="CUSTOMER", help="The customer that pays; 'default' if no customers are configured."
    ),
]


def show(
    customer: Annotated[str, typer.Argument(help="Show only this customer's budgets.")] = "",
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show every budget: its limit, spent and reserved amounts, and reset time.

    Debt is the cost of calls that exceeds their reservations. The exit code is 1 if the counters
    of a customer are lost; paid calls of that customer are denied until the counters are rebuilt.
    """
    result = asyncio.run(_reply(state_dir, customer))
    if as_json:
        show_json(result.model_dump())
    else:
        show_table(COLUMNS, [_row(budget) for budget in result.budgets], "No budget is configured.")
        say(*(f"{customer}: {why}" for customer, why in result.lost.items()))
        say(*(["More budgets exist; name a customer to see its budgets."] if result.more else []))
    raise typer.Exit(1 if result.lost else 0)


def rebuild(
    customer: Scope, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False
) -> None:
    """Rebuild a customer's counters from events; paid calls are denied meanwhile.

    Toolbus does this automatically when Redis has lost the counters.
    """
    _show_rebuilt(asyncio.run(_rebuilt(state_dir, customer, accept=False)), as_json=as_json)


def accept(
    customer: Scope, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False
) -> None:
    """Reopen a customer's budgets although the stored events do not cover the whole period.

    Only the calls in the stored events are counted; earlier spending is not.
    """
    _show_rebuilt(asyncio.run(_rebuilt(state_dir, customer, accept=True)), as_json=as_json)


async def _reply(state_dir: Path, customer: str) -> LedgerReply:
    async with joined(find(state_dir)) as bus:
        query = LedgerQuery(customer=customer)
        return await RequestReply(OPERATOR, bus).request(query, LedgerReply, SHOW_SECONDS)


async def _rebuilt(state_dir: Path, customer: str, *, accept: bool) -> RebuildReply:
    async with joined(find(state_dir)) as bus:
        request = RebuildRequest(customer=customer, accept=accept, by=me())
        return await RequestReply(OPERATOR, bus).request(request, RebuildReply, REBUILD_SECONDS)


def _show_rebuilt(reply: RebuildReply, *, as_json: bool) -> None:
    if as_json:
        show_json(reply.model_dump())
        return
    say(
        f"Rebuilt from the events since {_moment(reply.since)}; "
        f"{reply.calls} calls are in progress. 'toolbus ledger show' shows the budgets."
    )


def _row(budget: BudgetState) -> tuple[str, ...]:
    zone = "" if budget.timezone == "UTC" else f" ({budget.timezone})"
    period = f"rolling {budget.per}" if budget.rolling else f"{budget.per}{zone}"
    amounts = (budget.limit, budget.spent, budget.reserved, budget.debt)
    return (
        budget.customer, budget.level, period, " ".join((*budget.tools, *budget.models)),
        *(_amount(budget.kind, amount) for amount in amounts), _moment(budget.resets_at),
    )  # fmt: skip


def _amount(kind: str, amount: int) -> str:
    return f"${amount / MICRO:g}" if kind == "usd" else f"{amount} calls"


def _moment(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
