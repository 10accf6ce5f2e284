"""Commands for auditors: export evidence, print the log key, verify a bundle."""

import asyncio
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.commands.queries import opened_queries
from toolbus_cli.config_client import people_of
from toolbus_cli.errors import CommandError
from toolbus_cli.evidence.export import LATEST, Wanted, moment, take
from toolbus_cli.installation import find, joined
from toolbus_cli.remote import contexts
from toolbus_cli.remote.queries import state_of
from toolbus_common.contracts import ServiceStatus
from toolbus_common.errors import InvalidError
from toolbus_common.evidence import verify
from toolbus_common.evidence.bundle import Opening
from toolbus_common.evidence.collection import gathered
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR


class Form(StrEnum):
    """The formats of an export."""

    BUNDLE = "bundle"
    JSONL = "jsonl"
    PARQUET = "parquet"
    OCSF = "ocsf"


def export(  # noqa: PLR0913
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    *,
    form: Annotated[
        Form,
        typer.Option("--format", help="bundle: signed evidence (zip); the others: plain events."),
    ] = Form.BUNDLE,
    customer: Annotated[
        str,
        typer.Option(help="The customer; default: 'default' for bundles, else all customers."),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            help="Start at this day or time (UTC), or this long ago (7d); a bundle starts at a "
            "checkpoint."
        ),
    ] = "",
    reveal: Annotated[
        bool,
        typer.Option(help="Include personal data in the bundle in plain text, with proofs."),
    ] = False,
    until: Annotated[
        str, typer.Option(help="End before this day or time (UTC); not for bundles.")
    ] = "",
    event: Annotated[
        list[str] | None, typer.Option(help="Events of this name, such as 'call.*'; repeatable.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Export events: as a signed bundle that verifies offline, or as plain rows.

    A bundle contains the whole log of one customer. The other formats contain plain events, ordered
    by time: jsonl has the events as their producers wrote them, ocsf has Open Cybersecurity Schema
    Framework events (one per line), parquet has the columns of the table.
    """
    if form is Form.BUNDLE:
        if until or event:
            raise CommandError(
                "A bundle is a whole log: omit --until and --event, or choose another --format."
            )
        result = asyncio.run(_export(state_dir, out, customer or "default", since, reveal=reveal))
        show_json(result) if as_json else _say_bundle(out, result)
        return
    if reveal:
        raise CommandError("--reveal applies to bundles only; omit it.")
    times, customers = (moment(since, 0.0), moment(until, LATEST)), (customer,) if customer else ()
    wanted = Wanted(form.value, *times, tuple(event or ()), customers)
    rows = asyncio.run(_taken(state_dir, out, wanted))
    show_json({"file": str(out), "events": rows}) if as_json else _say_rows(out, rows)


def _say_bundle(out: Path, reply: dict[str, Any]) -> None:
    say(f"Wrote {out}: {reply['events']} events, {reply['checkpoints']} checkpoints.")
    say(f"Verify it with: toolbus audit verify {out} --key KEY")


def _say_rows(out: Path, rows: int) -> None:
    say(f"{out}: {rows} {'event' if rows == 1 else 'events'}.")


async def _export(
    state_dir: Path, out: Path, customer: str, since: str, *, reveal: bool
) -> dict[str, Any]:
    opened = await _opened(state_dir) if reveal else None
    async with opened_queries(state_dir) as queries:
        found = await gathered(queries, customer, since)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Events", total=found.size)
            events = await found.write(out, lambda: progress.advance(task), opened)
    return {"bundle": str(out), "events": events, "checkpoints": len(found.statements)}


async def _opened(state_dir: Path) -> Opening:
    """Return the function that decrypts personal data. Raises `CommandError`."""
    if contexts.chosen() is not None:
        raise CommandError(
            "--reveal needs the keys of persons, which are on the machines of the installation "
            "only; omit it, or run the command there."
        )
    place = find(state_dir)
    async with joined(place) as bus:
        people = await people_of(bus, place.state)
        await people.read_all()
        if people.fault:
            raise CommandError(people.fault)
        return people.opened


async def _taken(state_dir: Path, out: Path, wanted: Wanted) -> int:
    async with opened_queries(state_dir) as queries:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Events", total=None)

            def advance(rows: int, total: int) -> None:
                progress.update(task, advance=rows, total=total)

            return await take(queries, wanted, out, advance)


def key(*, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Print the public key that signs checkpoints; give it to auditors in advance."""
    say(asyncio.run(_key(state_dir)))


async def _key(state_dir: Path) -> str:
    if (context := contexts.chosen()) is not None:
        return _key_of(state_of(context).services)
    async with joined(find(state_dir)) as bus:
        return _key_of(await RequestReply(OPERATOR, bus).request_all(wanted=("audit",)))


def _key_of(services: Iterable[ServiceStatus]) -> str:
    for status in services:
        if result := status.details.get("signed_by"):
            return str(result)
    raise InvalidError("The audit service did not respond; check 'toolbus status' and retry.")


def check(  # noqa: PLR0913
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle that `export` wrote.")],
    *,
    key: Annotated[str, typer.Option(help="The public key that you received in advance.")],
    seen: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoints stored elsewhere: a file or a directory; repeatable."),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="The key of a witness that must have cosigned; repeatable."),
    ] = None,
    quorum: Annotated[
        int,
        typer.Option(help="The number of witnesses that must have cosigned; default: all.", min=0),
    ] = 0,
    customer: Annotated[str, typer.Option(help="The customer whose log is expected.")] = "",
    until: Annotated[
        str,
        typer.Option(
            help="Fail if the last checkpoint (with --witness: cosignature) was made before this "
            "time (UTC), such as 2026-11-01T12:00:00."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify a bundle offline: bytes, tree, signatures, sequences, intents and outcomes.

    The same program is in the Toolbus repository and in each bundle: `python3 verify.py BUNDLE
    --key KEY`. Exit code 0: valid; 1: not valid, with a line for each finding; 2: the bundle
    cannot be read.
    """
    words = [str(path), "--key", key, "--quorum", str(quorum)]
    words += [word for each in seen or () for word in ("--seen", str(each))]
    words += [word for each in witness or () for word in ("--witness", each)]
    words += [
        *(["--customer", customer] if customer else []),
        *(["--until", until] if until else []),
    ]
    raise typer.Exit(verify.main([*words, *(["--json"] if as_json else [])]))
