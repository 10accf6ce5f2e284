"""Commands for auditors: facts taken out with what seals them, the key they trust, the check."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from toolbus_cli.commands.shared import DEFAULT_STATE, AsJson, StateDir, say, show_json
from toolbus_cli.evidence import verify
from toolbus_cli.evidence.gathering import gathered
from toolbus_cli.local import find, joined
from toolbus_common.asklane import AskLane
from toolbus_common.errors import InvalidError
from toolbus_common.permissions import OPERATOR


def export(
    out: Annotated[Path, typer.Argument(help="The bundle to write, a zip file.")],
    *,
    scope: Annotated[str, typer.Option(help="Whose log; `default` without customers.")] = "default",
    since: Annotated[
        str, typer.Option(help="Begin with the last checkpoint before this day or time (UTC).")
    ] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Take a customer's sealed facts out, with all an auditor needs to check them alone."""
    told = asyncio.run(_export(state_dir, out, scope, since))
    if as_json:
        show_json(told)
        return
    say(f"{out}: {told['facts']} facts under {told['checkpoints']} checkpoints.")
    say(f"Check it with: toolbus audit verify {out} --key KEY  (or python3 verify.py, inside)")


async def _export(state_dir: Path, out: Path, scope: str, since: str) -> dict[str, Any]:
    async with joined(find(state_dir)) as bus:
        found = await gathered(AskLane(OPERATOR, bus), scope, since)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Facts", total=found.size)
            facts = await found.write(out, lambda: progress.advance(task))
    return {"bundle": str(out), "facts": facts, "checkpoints": len(found.statements)}


def key(*, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Print the public key that seals the logs: give it to auditors before they need it."""
    say(asyncio.run(_key(state_dir)))


async def _key(state_dir: Path) -> str:
    async with joined(find(state_dir)) as bus:
        for status in await AskLane(OPERATOR, bus).ask_all():
            if told := status.details.get("sealed_by"):
                return str(told)
    raise InvalidError("Audit did not answer; look at `toolbus status`, and ask again.")


def check(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `export` wrote.")],
    *,
    key: Annotated[str, typer.Option(help="The public key, as it was given to you beforehand.")],
    seen: Annotated[
        Path | None, typer.Option(help="A file of checkpoints you were told earlier.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle offline: bytes, tree, signatures, producers' numbers, intents and outcomes.

    The same as `python3 verify.py BUNDLE --key KEY` with the program inside the bundle. Exit
    code 1 says that something is wrong, and every finding what it is.
    """
    words = [str(path), "--key", key, *(["--seen", str(seen)] if seen else [])]
    raise typer.Exit(verify.main([*words, *(["--json"] if as_json else [])]))
