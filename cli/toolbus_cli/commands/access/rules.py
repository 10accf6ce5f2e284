"""Commands that list, check and replay rules."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import at_work, with_repository
from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_common import rules as cedar
from toolbus_common.config import Configuration, Rule
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.rules.replay import ARGUMENTS, CALLS, OUTCOMES, Replay, Report, recorded

SECONDS = 20.0  # longer than audit's query timeout
BATCH = 2000
MIN_ROWS = 16  # rows whose arguments fit into one reply, even if they are long
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def list_rules(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List configured rules; if several rules deny a call, the denial names the first."""

    async def work(repository: ConfigRepository) -> dict[str, Rule]:
        return (await repository.declared()).configuration.rules

    found = at_work(state_dir, work)
    if as_json:
        show_json({name: rule.model_dump() for name, rule in found.items()})
        return
    rows = [
        (name, rule.effect, "shadow" if rule.shadow else "", rule.reason)
        for name, rule in found.items()
    ]
    show_table(("rule", "effect", "", "reason"), rows, "No rule is configured.")


def check(
    file: Annotated[Path, typer.Argument(help="A toolbus.yaml, or one rule's text (.cedar).")],
    *,
    as_json: AsJson = False,
) -> None:
    """Validate rules against the attributes of calls and report every error; apply nothing."""
    declared = _proposed(file)
    if as_json:
        show_json({"valid": list(declared.rules)})
    else:
        count = len(declared.rules)
        say("1 rule is valid." if count == 1 else f"{count} rules are valid.")


def replay(
    file: Annotated[
        Path | None, typer.Argument(help="Proposed rules: a toolbus.yaml or a .cedar file.")
    ] = None,
    *,
    rule: Annotated[
        str,
        typer.Option(
            "--rule", help="Replay only this rule; without a file, the configured rule is replayed."
        ),
    ] = "",
    since: Annotated[str, typer.Option(help="How far back: 30m, 12h, 7d.")] = "7d",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Report how rules would have changed the decisions on recorded calls.

    Shadow rules count as enforced. Arguments are known only where `content: full` recorded
    them; calls whose result depends on unrecorded arguments are reported as unknown.
    """
    if file is None and not rule:
        raise CommandError("Name a file with rules, or a configured rule with --rule.")
    report = asyncio.run(_replay(file, rule, _seconds(since), state_dir))
    if as_json:
        show_json(report.as_data)
    else:
        _show(report)


def _proposed(file: Path) -> Configuration:
    """Load the configuration in a file. Raises `CommandError` with every error."""
    if file.suffix != ".cedar":
        return load_file(file, os.environ).configuration
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read; give a text file.") from error
    found = cedar.problems(text)
    if found:
        raise CommandError("\n".join(f"{file}: {message}" for message in found))
    return Configuration(rules={file.stem: Rule(cedar=text)})


async def _replay(file: Path | None, name: str, seconds: int, state_dir: Path) -> Report:
    proposed = _proposed(file) if file else None
    async with with_repository(state_dir) as repository:
        declared = (await repository.declared()).configuration
        is_whole = file is not None and file.suffix != ".cedar"
        rules = _chosen((proposed or declared).rules, name)
        known = proposed.rules if proposed and is_whole else declared.rules
        others = {each: rule for each, rule in known.items() if each not in rules}
        removed = declared.rules.keys() - known.keys() if not name else ()
        labelled = proposed if proposed and proposed.labels else declared
        played = Replay(rules, others, removed)
        async for row in _calls(RequestReply(OPERATOR, repository.bus), seconds):
            played.add(recorded(row, labelled))
    return played.report


def _chosen(rules: Mapping[str, Rule], name: str) -> Mapping[str, Rule]:
    if name and name not in rules:
        raise CommandError(
            f"There is no rule '{name}'; the rules are: {', '.join(rules) or 'none'}."
        )
    if not rules:
        raise CommandError("The file has no rules to replay; add them under 'rules:'.")
    return {name: rules[name]} if name else rules


async def _calls(queries: RequestReply, seconds: int) -> AsyncIterator[dict[str, Any]]:
    """Yield recorded decisions that rules could change, page by page."""
    after, batch = (0, -1), BATCH
    while True:
        where = f"AND (stream_seq, line) > {after} ORDER BY stream_seq, line"
        query = AuditQuery(sql=CALLS.format(seconds=seconds) + where, limit=batch)
        try:
            found = await queries.request(query, RowsReply, SECONDS)
        except InvalidError:
            if batch <= MIN_ROWS:
                raise
            batch //= 4  # arguments can be long
            continue
        for values in found.rows:
            row = dict(zip(found.columns, values, strict=True))
            after = (int(row["stream_seq"]), int(row["line"]))
            yield row
        if not found.more:
            return


def _seconds(since: str) -> int:
    message = re.fullmatch(r"(\d{1,6})([mhd])", since)
    if message is None:
        raise CommandError(f"'{since}' is not a duration; write 30m, 12h or 7d.")
    return int(message[1]) * _UNITS[message[2]]


def _show(report: Report) -> None:
    total = report.total
    say(
        f"{total.total()} calls: {total['refused']} would be denied, {total['approval']} "
        f"would wait for an approval, {total['allowed']} would be allowed, "
        f"{total['same']} would not change."
    )
    for missing, count in report.missing.items():
        fix = " (set content: full)" if missing == ARGUMENTS else ""
        say(f"{count} are unknown, because events do not record: {missing}{fix}.")
    for title, counted in (("key", report.by_key), ("tool", report.by_tool)):
        rows = [(name, *(each[outcome] for outcome in OUTCOMES)) for name, each in counted.items()]
        show_table((title, *OUTCOMES), sorted(rows), "")
    for outcome, shown in report.examples.items():
        for each in shown:
            say(f"{outcome}: {each['call_id']} {each['key']} {each['tool']} {each['rule']}")
