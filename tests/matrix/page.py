"""The page docs/reference/interoperability.md, written anew by every whole run."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from matrix.drivers.telling import ACTIONS, FAILED, OK
from matrix.expected import Expected
from matrix.table import Cell, mark, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "interoperability.md"
_HEAD = """\
# Interoperability

Written by `make matrix` on {day}; do not edit it. Nine clients of other hands reach five servers
through one gateway. Every server is the same program, `tests/fixture_server`, in another era or
over another transport: *modern* is 2026-07-28, *legacy* 2025-11-25 and earlier, *sse* is HTTP+SSE
of 2024-11-05. Each client runs in an environment of its own.

An action is **ok** when the client got what it should have got and, where something has to reach
the server, the server's own record shows it. **-** means that the client has no API for the action;
the reasons are below the table.

| action | what is done, and checked |
|---|---|
| list | the revision spoken is the one below; all pages of tools, the server's own among them |
| call | a random word comes back, and the server saw it |
| progress | 0, 50 and 100 of 100, in this order |
| elicitation | the server asks for a form in the middle of a call, and tells what was filled in |
| sampling | the server asks the client's model in the middle of a call, and repeats what it said |
| read | a resource's contents |
| subscribe | subscribed to a resource, the client hears that it changed |
| prompt | a prompt with an argument of its own |
| completion | the values of a prompt's argument |
| task | a call becomes a task, is asked about, and ends with its result |
| cancellation | the client gives a call of 10 s up after a second, and the server is told |
"""


def write(cells: list[Cell], expected: Expected) -> None:
    """Write the page."""
    day = datetime.now(UTC).date().isoformat()
    PAGE.write_text("\n".join([_HEAD.format(day=day), *_body(cells, expected)]) + "\n")


def _body(cells: list[Cell], expected: Expected) -> Iterator[str]:
    yield from _counts(cells)
    yield from _table(cells)
    yield from _failures(cells, expected)
    yield from _absences(cells)
    yield from _clients(cells)


def _counts(cells: list[Cell]) -> Iterator[str]:
    fine = sum(cell.outcome == OK for cell in cells)
    failed = sum(cell.outcome == FAILED for cell in cells)
    yield "## The table"
    yield ""
    yield f"{fine} ok, {failed} failed, {len(cells) - fine - failed} the client has no API for."
    yield ""


def _table(cells: list[Cell]) -> Iterator[str]:
    yield f"| client | server | {' | '.join(ACTIONS)} |"
    yield f"|---|---|{'---|' * len(ACTIONS)}"
    for (client, upstream), row in rows(cells).items():
        marks = " | ".join(_bold(row[action]) for action in ACTIONS)
        yield f"| {client} | {upstream} | {marks} |"
    yield ""


def _bold(cell: Cell) -> str:
    return f"**{mark(cell)}**" if cell.outcome == FAILED else mark(cell)


def _failures(cells: list[Cell], expected: Expected) -> Iterator[str]:
    yield "## What failed"
    yield ""
    reasons: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.outcome == FAILED:
            reasons.setdefault(expected.reason(cell) or "not expected", []).append(cell)
    for reason, failed in reasons.items():
        yield f"**{reason[0].upper()}{reason[1:]}.**"
        yield ""
        for cell in failed:
            yield f"- {cell.subject}: `{cell.detail.replace('`', chr(39))}`"
        yield ""
    if not reasons:
        yield "Nothing."
        yield ""


def _absences(cells: list[Cell]) -> Iterator[str]:
    yield "## What clients have no API for"
    yield ""
    yield "| client | action | why |"
    yield "|---|---|---|"
    yield from _once(
        f"| {cell.client.name} | {cell.action} | {cell.detail} |"
        for cell in cells
        if cell.outcome not in (OK, FAILED)
    )
    yield ""


def _clients(cells: list[Cell]) -> Iterator[str]:
    yield "## Clients"
    yield ""
    yield "| client | installed | speaks to the gateway |"
    yield "|---|---|---|"
    clients = dict.fromkeys(cell.client for cell in cells)
    yield from (f"| {each.name} | {each.version} | {each.era} |" for each in clients)
    yield ""
    yield "To see it again: `make matrix`. It installs the clients into `.matrix/` the first time;"
    yield "[tests/matrix](../tests/matrix/README.md) says how to run a part of it."


def _once(lines: Iterable[str]) -> Iterator[str]:
    yield from dict.fromkeys(lines)
