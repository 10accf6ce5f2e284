"""Commands about pins: what is held back, how it differs from what was approved, yes or no."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from toolbus_cli.clients.pins import Case, at_pins, changed_again
from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    at_work,
    say,
    show_json,
    show_table,
)
from toolbus_cli.errors import CommandError
from toolbus_cli.views.definition_diff import differences, texts
from toolbus_cli.views.visible_text import counted
from toolbus_common.config_store.repository import ConfigRepository

SHOWN_DIGEST = 16  # characters: nobody finds two definitions that share them in time
LEAST_DIGEST = 8

What = Annotated[str, typer.Argument(help="A server, or a full name such as docs__search.")]


def list_pins(
    server: Annotated[str, typer.Argument(help="A server, or a full name; else all.")] = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is approved and shown.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """What is held back, and why: nobody sees or calls it until somebody approves it."""
    cases = _look(server, state_dir, everything=everything)
    if as_json:
        show_json([_told(case) for case in cases])
        return
    rows = [
        (
            case.name,
            case.kind,
            f"held: {case.why}" if case.why else "shown",
            case.offered.digest[:SHOWN_DIGEST],
            case.pin.digest[:SHOWN_DIGEST],
            _decided(case),
        )
        for case in cases
    ]
    columns = ("name", "kind", "state", "digest", "approved", "decided")
    show_table(columns, rows, "Nothing is held back.")


def diff(what: What, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """How definitions differ from what was approved, member by member.

    Characters that hide or pass for others are named: ⟨U+200B ZERO WIDTH SPACE⟩.
    """
    cases = _look(what, state_dir, everything="__" in what)
    if as_json:
        show_json([_told(case) | _differing(case) for case in cases])
    else:
        _show(cases)
    if not as_json and not cases:
        say(f"Nothing of {what} is held back.")


def approve(
    what: What,
    *,
    digest: Annotated[
        str, typer.Option(help="Only if this is its digest now, as 'toolbus pins diff' told it.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not show the differences and ask.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Approve what is held back as it is now: one definition, or all of a server.

    The differences are shown first, and a question asked. A definition that changes meanwhile
    stays held back.
    """
    cases = _look(what, state_dir)
    if digest:
        _check(cases, what, digest)
    elif not yes and cases:
        _ask(cases)
    _decide(cases, state_dir, approved=True)
    _answer(cases, what, "approved", as_json=as_json)


def reject(what: What, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Refuse a definition as it is now, or all of a server that are held back.

    What is shown is taken away, in every mode. Another definition that was approved stays so.
    """
    cases = _look(what, state_dir, everything="__" in what)
    _decide(cases, state_dir, approved=False)
    _answer(cases, what, "rejected", as_json=as_json)


def _look(what: str, state_dir: Any, *, everything: bool = False) -> list[Case]:
    async def work(desk: ConfigRepository) -> list[Case]:
        return await (await at_pins(desk)).cases(what, everything=everything)

    return at_work(state_dir, work)


def _decide(cases: list[Case], state_dir: Any, *, approved: bool) -> None:
    async def work(desk: ConfigRepository) -> None:
        board = await at_pins(desk)
        if approved:
            await board.approve(*cases)
            return
        for case in cases:
            await board.reject(case)

    at_work(state_dir, work)


def _check(cases: list[Case], what: str, digest: str) -> None:
    """The digest somebody looked at must be the present one of the only case."""
    if len(digest) < LEAST_DIGEST:
        raise CommandError(f"--digest needs at least {LEAST_DIGEST} characters of the digest.")
    if len(cases) > 1:
        raise CommandError(f"--digest is of one definition, and {len(cases)} of {what} are held.")
    if cases and not cases[0].offered.digest.startswith(digest):
        raise CommandError(changed_again(cases[0].name))


def _ask(cases: list[Case]) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "Nobody is there to ask; say --digest with what 'toolbus pins diff' told, or --yes."
        )
    _show(cases)
    number = "this definition" if len(cases) == 1 else f"these {len(cases)} definitions"
    if not typer.confirm(f"Approve {number}?"):
        raise CommandError("Nothing was approved.")


def _answer(cases: list[Case], what: str, done: str, *, as_json: bool) -> None:
    if as_json:
        show_json([{"name": c.name, "kind": c.kind, "digest": c.offered.digest} for c in cases])
    else:
        say(*(f"{case.name} {case.offered.digest[:SHOWN_DIGEST]} {done}." for case in cases))
        say(*([] if cases else [f"Nothing of {what} is held back."]))


def _show(cases: list[Case]) -> None:
    for case in cases:
        kind = "" if case.kind == "tools" else " (prompt)"
        say(f"{case.name}{kind}: {case.why or 'shown as it is approved'}")
        if case.pin.digest:
            say(f"  approved {case.pin.digest[:SHOWN_DIGEST]}, {_decided(case)}")
        say(f"  now      {case.offered.digest[:SHOWN_DIGEST]}")
        for each in differences(case.pin.definition, case.offered.as_sent):
            say(*(f"  {line}" for line in each.lines()))
        hidden = counted(texts(case.offered.as_sent))
        for name, times in hidden.items():
            say(f"  ! it holds {name}, {times} times" if times > 1 else f"  ! it holds {name}")
        say("")


def _decided(case: Case) -> str:
    if not case.pin.at:
        return ""
    at = datetime.fromtimestamp(case.pin.at, UTC)
    return f"by {case.pin.by} on {at:%Y-%m-%d %H:%M} UTC"


def _told(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "kind": case.kind,
        "server": case.server,
        "held": case.why,
        "digest": case.offered.digest,
        "approved": case.pin.digest,
        "rejected": case.pin.rejected,
        "by": case.pin.by,
        "at": case.pin.at,
    }


def _differing(case: Case) -> dict[str, Any]:
    found = differences(case.pin.definition, case.offered.as_sent)
    return {
        "differences": [
            {"sign": each.sign, "path": each.path, "before": each.before, "after": each.after}
            for each in found
        ],
        "definition": case.offered.as_sent,
    }
