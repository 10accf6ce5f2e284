"""Commands that list dead letters and backfill missing rows."""

import asyncio
import gzip
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows
from toolbus_cli.commands.queries import opened_queries
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.contracts import (
    AuditQuery,
    BackfillLinesRequest,
    BackfillReply,
    BackfillRequest,
    RowsReply,
)
from toolbus_common.definitions.visible_text import printable
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

MAX_LINES, MAX_BYTES = 1000, 1 << 20  # of an export in one message
SECONDS = 60.0  # audit reads up to a thousand messages per request, with many events each
_LETTERS = (
    "SELECT concat(toString(stream_seq), '.', toString(line)) AS position, at, subject, reason"
)


def list_letters(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of lines.")] = 100,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first.

    A position has the form MESSAGE.LINE: the number of a message in the stream, and the number of a
    line in this message.
    """
    sql = f"{_LETTERS} FROM dead_letters ORDER BY at DESC, stream_seq DESC, line"
    rows = asyncio.run(_request(state_dir, sql, limit))
    nothing = "No dead letters."
    show_rows(("position", "at", "subject", "reason"), rows, nothing, as_json=as_json)


def show(
    position: Annotated[
        str,
        typer.Argument(help="A position from 'toolbus audit dead-letters list', such as 1042.0."),
    ],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter as audit received it, with the reason why it could not be parsed."""
    found = re.fullmatch(r"(\d{1,19})\.(\d{1,5})", position)
    if found is None:
        raise CommandError(
            f"'{position}' is not a position such as 1042.0; 'toolbus audit dead-letters "
            "list' shows the positions."
        )
    where = f"stream_seq = {found[1]} AND line = {found[2]}"
    sql = f"{_LETTERS}, digest, raw FROM dead_letters WHERE {where}"
    rows = asyncio.run(_request(state_dir, sql, 10))
    if not rows:
        raise CommandError(
            f"There is no dead letter at {position}; a retry may have succeeded. See "
            "'toolbus audit dead-letters list'."
        )
    if as_json:
        show_json(rows)
        return
    for row in rows:
        say(*(f"{name:8} {printable(str(row[name]))}" for name in row))


def retry(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Retry every dead letter that is still in the stream; parsed events become rows."""
    result = asyncio.run(_refilled(state_dir, BackfillRequest(dead=True)))
    if as_json:
        show_json(result)
        return
    say(f"{result['written']} events became rows; {result['unreadable']} still cannot be parsed.")


def backfill(
    export: Annotated[
        Path | None,
        typer.Argument(help="A JSONL export (plain or .gz) to read instead of the stream."),
    ] = None,
    *,
    since: Annotated[
        str, typer.Option(help="Start at this day or time (UTC); default: the whole stream.")
    ] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Insert events that are in the stream but missing in the tables.

    Use this command after tables were lost or restored from a backup. The stream stores events for
    14 days. Events of an export are matched by id; they have no stream position, so no checkpoint
    covers their rows.
    """
    if export is not None and since:
        raise CommandError("--since applies to the stream only; an export is read completely.")
    begin = _moment(since) if since else 0.0
    work = (
        _taken(state_dir, export) if export else _refilled(state_dir, BackfillRequest(since=begin))
    )
    result = asyncio.run(work)
    if as_json:
        show_json(result)
        return
    say(f"{result['lines']} lines read, {result['written']} missing events inserted.")
    if result["unreadable"]:
        say(f"{result['unreadable']} cannot be parsed; see 'toolbus audit dead-letters list'.")


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"'{text}' is not a day or time; write 2026-11-01 or 2026-11-01T14:30."
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


async def _refilled(state_dir: Path, request: BackfillRequest) -> dict[str, int]:
    """Backfill page by page to the end of the stream and return the totals."""
    total: Counter[str] = Counter(lines=0, written=0, unreadable=0)
    async with joined(find(state_dir)) as bus:
        queries = RequestReply(OPERATOR, bus)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Messages", total=None)
            while True:
                reply = await queries.request(request, BackfillReply, SECONDS)
                total.update(lines=reply.lines, written=reply.written, unreadable=reply.unreadable)
                progress.update(task, completed=reply.next or reply.until, total=reply.until)
                if not reply.next:
                    return dict(total)
                request = BackfillRequest(first=reply.next, dead=request.dead)


async def _taken(state_dir: Path, export: Path) -> dict[str, int]:
    """Backfill an export in pieces and return the totals."""
    total: Counter[str] = Counter(lines=0, written=0, unreadable=0)
    async with joined(find(state_dir)) as bus:
        queries = RequestReply(OPERATOR, bus)
        for piece in _pieces(export):
            reply = await queries.request(
                BackfillLinesRequest(lines=tuple(piece)), BackfillReply, SECONDS
            )
            total.update(lines=reply.lines, written=reply.written, unreadable=reply.unreadable)
    return dict(total)


def _pieces(export: Path) -> Iterator[list[str]]:
    """Yield the lines of an export in batches; each batch fits into one message."""
    piece, size = list[str](), 0
    try:
        with gzip.open(export, "rt") if export.suffix == ".gz" else export.open() as file:
            for line in file:
                if piece and (len(piece) == MAX_LINES or size + len(line) > MAX_BYTES):
                    yield piece
                    piece, size = [], 0
                piece.append(line.rstrip("\n"))
                size += len(line)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{export} cannot be read ({error}); give a JSONL export.") from error
    if piece:
        yield piece


async def _request(state_dir: Path, sql: str, limit: int) -> list[dict[str, Any]]:
    async with opened_queries(state_dir) as queries:
        query = AuditQuery(sql=sql, limit=limit)
        found = await queries.request(query, RowsReply, SECONDS)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
