"""Commands that erase personal data and manage legal holds."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_rows
from toolbus_cli.commands.repository import at_work, with_repository
from toolbus_cli.config_client import people_of
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find
from toolbus_common.config_store import erasure, hold_changes
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.errors import RefusedError, UnknownEntryError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.privacy.legal_holds import held

Customer = Annotated[
    str, typer.Argument(help="The customer; 'default' if no customers are configured.")
]


def forget(
    person: Annotated[
        str,
        typer.Argument(
            help="A user's name, or operator:NAME, admin:NAME, key:NAME, or customer:NAME."
        ),
    ],
    *,
    reason: Annotated[str, typer.Option(help="The reason; recorded in the event.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Erase a person: their names and content in events become unreadable.

    Cached responses of models to the person's requests become unreadable too. With
    customer:NAME, only the cached responses of this customer become unreadable.

    The command destroys the person's encryption key on the bus and in every service; the signed log
    remains verifiable. This cannot be undone. Remove other mentions yourself (toolbus.yaml,
    exported bundles).
    """
    asyncio.run(_forget(state_dir, person, reason, sure=yes))


async def _forget(state_dir: Path, text: str, reason: str, *, sure: bool) -> None:
    async with with_repository(state_dir) as repository:
        people = await people_of(repository.bus, find(state_dir).state)
        requests = RequestReply(OPERATOR, repository.bus)
        try:
            found = await erasure.found(repository, requests, people, text)
            where = ", ".join(found.customers)
            if not sure:
                question = f"Erase {found.person.name}, named in the logs of {where}, permanently?"
                typer.confirm(question, abort=True)
            confirmed = await erasure.erase(repository, requests, people, found, reason)
        except RefusedError as error:
            raise CommandError(error.reason) from error
    if not confirmed.complete:
        raise CommandError(
            f"The encryption key is deleted, but {confirmed.behind or 'some'} service replicas "
            "have not confirmed that they discarded their copy. Restart the replicas that 'toolbus "
            "status' shows as not ready."
        )
    say(
        f"Erased '{found.person.name}'; {confirmed.replicas} services confirmed that they "
        "discarded the key."
    )
    if found.plain:
        say(
            f"{found.plain} events from before names were encrypted still contain the "
            "plain name; they are deleted when their retention ends."
        )


def hold(
    customer: Customer,
    *,
    why: Annotated[
        str,
        typer.Option(
            help="The reason, such as a case number; recorded with the hold and in the event."
        ),
    ],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Place a legal hold; while it exists, no event of the customer is deleted or erased."""
    asyncio.run(_hold(state_dir, customer, why))
    say(f"Events of '{customer}' are under a legal hold and are not deleted.")


async def _hold(state_dir: Path, customer: str, why: str) -> None:
    async with with_repository(state_dir) as repository:
        people = await people_of(repository.bus, find(state_dir).state)
        try:
            await hold_changes.place(repository, people, customer, why)
        except UnknownEntryError as error:
            raise CommandError(
                f"No customer '{customer}' is configured; 'toolbus get customers' lists them."
            ) from error


def lift(
    customer: Customer,
    *,
    why: Annotated[str, typer.Option(help="The reason; recorded in the event.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Remove a legal hold; events that expired during the hold are deleted within an hour."""

    async def work(repository: ConfigRepository) -> None:
        try:
            await hold_changes.lift(repository, customer, why)
        except UnknownEntryError as error:
            raise CommandError(
                f"'{customer}' is not under a legal hold; 'toolbus audit hold list' "
                "shows all holds."
            ) from error

    at_work(state_dir, work)
    say(f"Removed the legal hold on '{customer}'.")


def list_holds(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List legal holds with customer, time and reason."""
    rows = asyncio.run(_holds(state_dir))
    show_rows(
        ("customer", "since", "by", "why"),
        rows,
        "No customer is under a legal hold.",
        as_json=as_json,
    )


async def _holds(state_dir: Path) -> list[dict[str, Any]]:
    async with with_repository(state_dir) as repository:
        people = await people_of(repository.bus, find(state_dir).state)
        await people.read_all()
        return [
            {
                "customer": customer,
                "since": f"{datetime.fromtimestamp(each.at, UTC):%Y-%m-%d %H:%M} UTC",
                "by": people.reveal(each.by),
                "why": each.why,
            }
            for customer, each in sorted((await held(await repository.bus.bucket(CONFIG))).items())
        ]
