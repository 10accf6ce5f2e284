"""Table: clients and servers down, actions across."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from matrix.clients import CLIENTS, Client
from matrix.drivers.report import ACTIONS, FAILED, OK
from matrix.expected import Expected
from matrix.upstreams import NAMES


@dataclass(frozen=True)
class Cell:
    """The result of one action of one client at one server."""

    client: Client
    upstream: str
    action: str
    outcome: str
    detail: str

    @property
    def subject(self) -> str:
        """The name in expected.yml."""
        return f"{self.client.name} / {self.upstream} / {self.action}"


Rows = dict[tuple[str, str], dict[str, Cell]]


def rows(cells: Iterable[Cell]) -> Rows:
    """Return the cells by client and server, in order."""
    found: Rows = {}
    places = [client.name for client in CLIENTS]
    for cell in sorted(
        cells, key=lambda cell: (places.index(cell.client.name), NAMES.index(cell.upstream))
    ):
        found.setdefault((cell.client.name, cell.upstream), {})[cell.action] = cell
    return found


def mark(cell: Cell) -> str:
    """Return the text of a cell."""
    return {OK: "ok", FAILED: "failed"}.get(cell.outcome, "-")


def show(cells: list[Cell], expected: Expected) -> None:
    """Print the table and the failures."""
    shown = Table(title="Clients, servers and what they can do through Toolbus")
    for heading in ("client", "server", *ACTIONS):
        shown.add_column(heading, overflow="fold")
    for (client, upstream), row in rows(cells).items():
        marks = [_colour(row[action], expected) for action in ACTIONS]
        shown.add_row(client, upstream, *marks)
    console = Console(width=200)
    console.print(shown)
    for cell in cells:
        if cell.outcome == FAILED:
            reason = expected.reason(cell) or "not expected"
            console.print(f"{cell.subject}: {cell.detail} ({reason})", markup=False)


def _colour(cell: Cell, expected: Expected) -> str:
    if cell.outcome == FAILED:
        return f"[{'yellow' if expected.reason(cell) else 'red'}]failed[/]"
    return f"[green]{mark(cell)}[/]" if cell.outcome == OK else mark(cell)
