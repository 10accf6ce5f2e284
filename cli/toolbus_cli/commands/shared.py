"""Options and output shared by commands."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolbus_cli import config_client as desks
from toolbus_cli.installation import find, joined
from toolbus_cli.views.visible_text import escaped, printable
from toolbus_common.config_store.repository import ConfigRepository

T = TypeVar("T")

StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir", envvar="TOOLBUS_STATE_DIR", help="The installation's state directory."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = Path(".toolbus")


@asynccontextmanager
async def with_repository(state_dir: Path) -> AsyncIterator[ConfigRepository]:
    """Return the configuration repository of an installation."""
    place = find(state_dir)
    async with joined(place) as bus, desks.opened(bus, place.state) as repository:
        yield repository


def at_work(state_dir: Path, work: Callable[[ConfigRepository], Awaitable[T]]) -> T:
    """Run an operation with the configuration repository, then disconnect."""

    async def do() -> T:
        async with with_repository(state_dir) as repository:
            return await work(repository)

    return asyncio.run(do())


def show_json(data: Any) -> None:
    """Print JSON with control and invisible characters escaped."""
    sys.stdout.write(escaped(json.dumps(data, indent=2, default=str, ensure_ascii=False)) + "\n")


def say(*lines: str) -> None:
    """Print lines for people."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def show_rows(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], nothing: str, *, as_json: bool
) -> None:
    """Print named values as JSON, or the given columns as a table."""
    if as_json:
        show_json(rows)
    else:
        show_table(columns, [[row[column] for column in columns] for row in rows], nothing)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], nothing: str) -> None:
    """Print rows as a table, or a message if there are none."""
    if not rows:
        say(nothing)
        return
    # Output to a pipe has one line per row, even if the line is long.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return printable(" ".join(map(str, value)))
    return printable(json.dumps(value) if isinstance(value, dict) else str(value))
