"""Commands that list, compare, approve and reject pinned definitions."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import at_work
from toolbus_cli.errors import CommandError
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.definitions.capability_changes import capability_changes
from toolbus_common.definitions.definition_diff import differences, texts
from toolbus_common.definitions.pins import Case, at_pins, changed_again
from toolbus_common.definitions.visible_text import counted

SHOWN_DIGEST = 16  # characters; finding a collision takes too long for an attack
MIN_DIGEST = 8
_SINGULAR = {"prompts": "prompt", "resources": "resource", "templates": "resource template"}

What = Annotated[
    str, typer.Argument(help="A server, or the full name of a definition, such as docs__search.")
]


def list_pins(
    server: Annotated[
        str, typer.Argument(help="A server, or the full name of a definition; default: all.")
    ] = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Include definitions that are not quarantined.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List quarantined definitions with the reason; they are hidden until they are approved.

    The column signals names the rules that found instructions to a model, or hidden text. The
    columns reads and writes are the labels of information flow; a `?` marks a guess.
    """
    cases = _look(server, state_dir, everything=everything)
    if as_json:
        show_json([_reply(case) for case in cases])
        return
    rows = [
        (
            case.name,
            case.kind,
            f"quarantined: {case.why}" if case.why else "listed",
            case.offered.digest[:SHOWN_DIGEST],
            case.pin.digest[:SHOWN_DIGEST],
            _decided(case),
            _signals(case),
            *(case.labels.shown if case.labels is not None else ("", "")),
        )
        for case in cases
    ]
    columns = (
        "name",
        "kind",
        "state",
        "digest",
        "approved",
        "decided",
        "signals",
        "reads",
        "writes",
    )
    show_table(columns, rows, "No definition is quarantined.")


def diff(what: What, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show how definitions differ from the approved definitions, field by field.

    Invisible and look-alike characters are shown by name: ⟨U+200B ZERO WIDTH SPACE⟩.
    """
    cases = _look(what, state_dir, everything="__" in what)
    if as_json:
        show_json([_reply(case) | _differing(case) for case in cases])
    else:
        _show(cases)
    if not as_json and not cases:
        say(f"No definition of '{what}' is quarantined.")


def approve(
    what: What,
    *,
    digest: Annotated[
        str,
        typer.Option(help="Approve only if the digest that 'pins diff' prints is this one."),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Skip the differences and the confirmation.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Approve the current version of a quarantined definition, or of all definitions of a server.

    The command shows the differences and asks for confirmation. A definition that changes before
    the approval stays quarantined.
    """
    cases = _look(what, state_dir)
    if digest:
        _check(cases, what, digest)
    elif not yes and cases:
        _ask(cases)
    _decide(cases, state_dir, approved=True)
    _answer(cases, what, "approved", as_json=as_json)


def reject(what: What, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Reject the current version of a definition, or all quarantined definitions of a server.

    A rejected version is hidden in every mode; an approved version of the same definition stays
    approved.
    """
    cases = _look(what, state_dir, everything="__" in what)
    _decide(cases, state_dir, approved=False)
    _answer(cases, what, "rejected", as_json=as_json)


def _look(what: str, state_dir: Any, *, everything: bool = False) -> list[Case]:
    async def work(repository: ConfigRepository) -> list[Case]:
        return await (await at_pins(repository)).cases(what, everything=everything)

    return at_work(state_dir, work)


def _decide(cases: list[Case], state_dir: Any, *, approved: bool) -> None:
    async def work(repository: ConfigRepository) -> None:
        board = await at_pins(repository)
        if approved:
            await board.approve(*cases)
            return
        for case in cases:
            await board.reject(case)

    at_work(state_dir, work)


def _check(cases: list[Case], what: str, digest: str) -> None:
    """Check that `digest` is the current digest of the only case. Raises `CommandError`."""
    if len(digest) < MIN_DIGEST:
        raise CommandError(
            f"--digest is too short; give at least {MIN_DIGEST} characters of the digest."
        )
    if len(cases) > 1:
        raise CommandError(
            f"--digest selects one definition, but '{what}' has {len(cases)} quarantined "
            "ones; give a full name."
        )
    if cases and not cases[0].offered.digest.startswith(digest):
        raise CommandError(changed_again(cases[0].name))


def _ask(cases: list[Case]) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "An approval needs a confirmation, but there is no terminal; give --digest "
            "from 'toolbus pins diff', or --yes."
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
        say(*([] if cases else [f"No definition of '{what}' is quarantined."]))


def _show(cases: list[Case]) -> None:
    for case in cases:
        kind = "" if case.kind == "tools" else f" ({_SINGULAR.get(case.kind, case.kind)})"
        say(f"{case.name}{kind}: {case.why or 'approved'}")
        if case.pin.digest:
            say(f"  approved {case.pin.digest[:SHOWN_DIGEST]}, {_decided(case)}")
        say(f"  now      {case.offered.digest[:SHOWN_DIGEST]}")
        for each in differences(case.pin.definition, case.offered.as_sent):
            say(*(f"  {line}" for line in each.lines()))
        for change in _capabilities(case):
            say(f"  ! {change}")
        if case.offered.signals:
            say(f"  ! signals: {_signals(case)}")
        hidden = counted(texts(case.offered.as_sent))
        for name, times in hidden.items():
            say(f"  ! contains {name}, {times} times" if times > 1 else f"  ! contains {name}")
        say("")


def _capabilities(case: Case) -> list[str]:
    """Return what a tool can do or request beyond its approved version."""
    if case.kind != "tools":
        return []
    return capability_changes(case.pin.definition, case.offered.as_sent)


def _signals(case: Case) -> str:
    """Return the rules that matched in a definition, with their scores; the highest first."""
    found = sorted(case.offered.signals.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{rule} {score:.2f}" for rule, score in found)


def _decided(case: Case) -> str:
    if not case.pin.at:
        return ""
    at = datetime.fromtimestamp(case.pin.at, UTC)
    return f"by {case.pin.by} on {at:%Y-%m-%d %H:%M} UTC"


def _reply(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "kind": case.kind,
        "server": case.server,
        "quarantined": case.why,
        "signals": case.offered.signals,
        "flow": to_builtins(case.labels),
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
        "capabilities": _capabilities(case),
        "definition": case.offered.as_sent,
    }
