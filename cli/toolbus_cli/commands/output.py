"""Output of commands: JSON, lines and tables."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from toolbus_common.definitions.visible_text import escaped, printable


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
    # Imported here, since a command that calls a tool starts in half the time without rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

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
