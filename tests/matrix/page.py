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

Written by `make matrix` on {day}; do not edit it.

Nine third-party clients connect to five servers through one gateway. Every server is the same
program, `tests/fixture_server`, with another protocol family or transport: *modern* is
2026-07-28, *legacy* is 2025-11-25 and earlier, *sse* is HTTP+SSE of 2024-11-05. Each client
runs in its own environment.

An action is **ok** if the client received the expected result and, where a message must reach
the server, the server recorded it. **-** means that the client has no API for the action; the
reasons are below the table.

| action | check |
|---|---|
| list | the negotiated revision is the one below; every page of tools is listed |
| call | a random word is returned, and the server received it |
| progress | 0, 50 and 100 of 100 arrive in this order |
| elicitation | the server requests a form during a call and returns what was filled in |
| sampling | the server requests a completion of the client's model during a call and returns it |
| read | a resource's contents arrive |
| subscribe | a subscribed client receives a notification when the resource changes |
| prompt | a prompt with an argument arrives |
| completion | the values of a prompt's argument arrive |
| task | a call becomes a task, is queried, and ends with its result |
| cancellation | the client cancels a call of 10 s after one second, and the server receives it |
"""

_REPEAT = """\
`make matrix` repeats the measurement. The first run installs the clients into `.matrix/`;
`tests/matrix/README.md` describes how to run a part of it."""


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
    yield "## Results"
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
    yield "## Failures"
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
        yield "None."
        yield ""


def _absences(cells: list[Cell]) -> Iterator[str]:
    yield "## Missing APIs of clients"
    yield ""
    yield "| client | action | reason |"
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
    yield "| client | installed | negotiated revision |"
    yield "|---|---|---|"
    clients = dict.fromkeys(cell.client for cell in cells)
    yield from (f"| {each.name} | {each.version} | {each.family} |" for each in clients)
    yield ""
    yield _REPEAT


def _once(lines: Iterable[str]) -> Iterator[str]:
    yield from dict.fromkeys(lines)
