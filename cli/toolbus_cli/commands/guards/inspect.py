"""Commands that list guards, show one, and check contents with them."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from toolbus_cli.clients.guard_attachments import attachments
from toolbus_cli.clients.guard_samples import Result, document, samples_of, text_of
from toolbus_cli.commands.guards.sources import ConfigFile, laboratory, rows_of
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import with_repository
from toolbus_cli.errors import CommandError
from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.errors import ToolbusError
from toolbus_common.guards.detectors import SEARCHING, detector_of, known_rules_of, rules_of
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

_RECENT = (
    "SELECT guard, phase, verdict, count() AS checks, max(at) AS last FROM guard_checks "
    "WHERE at >= now() - INTERVAL 1 DAY GROUP BY guard, phase, verdict"
)
_PASSED = "passed"


def list_guards(
    *,
    rules: Annotated[
        bool, typer.Option("--rules", help="List the rules of the built-in kinds instead.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List guards: their actions, where they are attached, their verdicts of the last 24 hours."""
    if rules:
        _list_rules(as_json=as_json)
        return
    rows = asyncio.run(_listed(state_dir))
    if as_json:
        show_json(rows)
        return
    columns = ("guard", "kind", "on", "action", "mode", "fail", "attached to", "24 hours")
    show_table(columns, [_cells(row) for row in rows], "No guard is configured; see guards.md.")
    for row in rows:
        if not row["attached_to"]:
            say(f"'{row['guard']}' is attached to nothing, so it checks no call.")


def show(
    name: Annotated[str, typer.Argument(help="The name of a guard.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show a guard: its settings, where it is attached, the version of its rules, its verdicts."""
    rows = {row["guard"]: row for row in asyncio.run(_listed(state_dir))}
    if name not in rows:
        raise CommandError(f"There is no guard '{name}'; the guards are: {', '.join(rows)}.")
    row = rows[name]
    if as_json:
        show_json(row)
        return
    say(f"{name}: {row['kind']}, {row['action']}, {row['mode']}, fails {row['fail']}")
    show_table(("setting", "value"), [*row["settings"].items()], "")
    say("", f"Attached to: {', '.join(row['attached_to']) or 'nothing, so it checks no call'}")
    if row["version"]:
        say(f"Version of its rules: {row['version']}")
    if row["error"]:
        say(f"It checks nothing on this machine: {row['error']}.")
    if row["rules"]:
        say(f"Its {len(row['rules'])} rules: {', '.join(row['rules'])}")
    say("")
    recent = [
        (each["phase"], each["verdict"], each["checks"], each["last"]) for each in row["recent"]
    ]
    show_table(("phase", "verdict", "checks", "last"), recent, "No check in the last 24 hours.")


def check(
    name: Annotated[str, typer.Argument(help="The name of a guard.")],
    text: Annotated[str, typer.Argument(help="The content: a text or a JSON document.")] = "",
    *,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read the content from a file; - is stdin.")
    ] = None,
    phase: Annotated[str, typer.Option(help="The phase; default: the guard's first phase.")] = "",
    config: ConfigFile = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Check a text or a document with a guard.

    The exit code is 1 if the guard found something or failed.
    The output names the rules that matched, never the matched text.
    """
    if bool(text) == (file is not None):
        raise CommandError("Give either a text or a file (--file) to check.")
    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else text_of(file)
    made = asyncio.run(_checked(name, phase, document(text), config, state_dir))
    if as_json:
        show_json(made.__dict__)
    else:
        say(_line(made))
    raise typer.Exit(0 if made.verdict == _PASSED else 1)


def compare(
    file: Annotated[Path, typer.Argument(help="Samples: .jsonl, or a list in YAML or JSON.")],
    *,
    guard: Annotated[
        str, typer.Option("--guard", help="The guard for samples that name no guard.")
    ] = "",
    config: ConfigFile = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Check samples and compare the verdicts with the expected verdicts.

    The exit code is 1 if a verdict differs.
    A sample has the fields phase (arguments, results, ...), content (a text or JSON) and expect (a
    verdict: passed, blocked, redacted, flagged, asked, would_...), and can have guard, findings
    (names of rules) and name. Without a guard, all guards of the phase check it.
    """
    found = asyncio.run(_tested(file, guard, config, state_dir))
    wrong = [each for each in found if not each.ok]
    if as_json:
        show_json([each.as_data for each in found])
    else:
        rows = [
            (each.sample, each.check.guard, each.check.phase, each.expected, each.check.verdict,
             ", ".join(each.check.findings) or each.check.error)
            for each in wrong
        ]  # fmt: skip
        columns = ("sample", "guard", "phase", "expected", "verdict", "findings")
        show_table(columns, rows, f"All {len(found)} checks have the expected verdict.")
        if wrong:
            say(f"{len(wrong)} of {len(found)} checks differ.")
    raise typer.Exit(1 if wrong or not found else 0)


async def _checked(
    name: str, phase: str, content: bytes, config: Path | None, state_dir: Path
) -> GuardCheck:
    async with laboratory(config, state_dir) as guards:
        chosen = phase or guards.known(name).on[0]
        return await guards.check(name, cast("Phase", chosen), content)


async def _tested(file: Path, guard: str, config: Path | None, state_dir: Path) -> list[Result]:
    samples = samples_of(file)
    async with laboratory(config, state_dir) as guards:
        return [
            result
            for number, sample in enumerate(samples, 1)
            for result in await guards.results(number, sample, guard)
        ]


async def _listed(state_dir: Path) -> list[dict[str, Any]]:
    async with with_repository(state_dir) as repository:
        declared = (await repository.declared()).configuration
        places = attachments(declared, await repository.own_keys())
        try:
            recent, _ = await rows_of(RequestReply(OPERATOR, repository.bus), _RECENT)
        except ToolbusError:
            recent = []  # audit is not running; its state is in 'toolbus status'
    return [
        _described(name, guard, places[name], [each for each in recent if each["guard"] == name])
        for name, guard in declared.guards.items()
    ]


def _described(
    name: str, guard: Guard, places: tuple[str, ...], recent: list[dict[str, Any]]
) -> dict[str, Any]:
    hidden = {"credentials", "headers"}
    settings = guard.model_dump(mode="json", exclude_defaults=True, exclude=hidden)
    version, error = _version(guard)
    return {
        "guard": name,
        "kind": guard.kind,
        "on": [*guard.on],
        "action": guard.action,
        "mode": guard.mode,
        "fail": "closed" if guard.fails_closed else "open",
        "attached_to": [*places],
        "version": version,
        "error": error,
        "rules": [*rules_of(guard)],
        "settings": settings,
        "recent": recent,
    }


def _version(guard: Guard) -> tuple[str, str]:
    """Return the version of the rules of a guard, or why they cannot be loaded here."""
    if not guard.is_built_in or guard.kind == "limits":
        return "", ""
    try:
        return detector_of(guard).version, ""
    except ValueError as error:
        return "", str(error)


def _list_rules(*, as_json: bool) -> None:
    found = {kind: sorted(known_rules_of(kind) or ()) for kind in sorted(SEARCHING)}
    if as_json:
        show_json(found)
        return
    show_table(("kind", "rule"), [(kind, each) for kind in found for each in found[kind]], "")


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    counts: dict[str, int] = {}
    for each in row["recent"]:
        counts[each["verdict"]] = counts.get(each["verdict"], 0) + int(each["checks"])
    recent = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return (
        row["guard"], row["kind"], ", ".join(row["on"]), row["action"], row["mode"], row["fail"],
        ", ".join(row["attached_to"]) or "-", recent or "-",
    )  # fmt: skip


def _line(made: GuardCheck) -> str:
    found = f": {', '.join(made.findings)} (score {made.score:g})" if made.findings else ""
    failed = f": {made.error}" if made.error else ""
    return f"{made.guard} {made.phase}: {made.verdict}{found}{failed} ({made.us} µs)"
