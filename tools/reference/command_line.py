"""Every command of `toolbus` with its arguments, options and examples."""

import re
from collections.abc import Iterator

import click
import typer.main

from reference.markdown import code, table
from toolbus_cli.app import built

PROGRAM = "toolbus"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and group below `toolbus` by its full name, in the order of `--help`."""
    yield from _below(PROGRAM, typer.main.get_command(built()))


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return
    for each, child in command.commands.items():
        yield f"{name} {each}", child
        yield from _below(f"{name} {each}", child)


def generated() -> str:
    """Return an overview of the commands and one section for each."""
    found = list(commands())
    overview = table(
        ("command", "purpose"),
        (
            (f"[{code(name)}](#{name.replace(' ', '-')})", _first_line(command))
            for name, command in found
            if not isinstance(command, click.Group)
        ),
    )
    sections = (
        _section(name, command) for name, command in found if not isinstance(command, click.Group)
    )
    return "\n\n".join([f"## Commands\n\n{overview}", *sections])


def _first_line(command: click.Command) -> str:
    return (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"## {name}", _help(command), f"```text\n{name} {usage}\n```"]
    rows = [_row(context, each) for each in command.params if not getattr(each, "hidden", False)]
    if rows:
        parts.append(table(("argument or option", "default", "description"), rows))
    examples = _examples(command)
    if examples:
        parts.append(f"Examples:\n\n```text\n{examples}\n```")
    return "\n\n".join(filter(None, parts))


def _help(command: click.Command) -> str:
    """Return the help text; `\\b` marks a paragraph whose lines are kept, an indented code block."""
    shown = []
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        if paragraph.startswith("\b"):
            shown.append("```text\n" + paragraph.removeprefix("\b").strip("\n") + "\n```")
        else:
            shown.append(" ".join(paragraph.split()))
    return "\n\n".join(shown)


def _row(context: click.Context, each: click.Parameter) -> tuple[str, str, str]:
    names = [*each.opts, *each.secondary_opts]
    if isinstance(each, click.Argument):
        shown = code(each.make_metavar(context))
        text = getattr(each, "help", "") or ""
    else:
        assert isinstance(each, click.Option)
        kind = "" if each.is_flag or each.count else f" {each.make_metavar(context)}"
        shown = ", ".join(code(f"{name}{kind}") for name in names)
        text = each.help or ""
        if each.envvar:
            text += f" Environment variable: {code(each.envvar)}."
    if each.required:
        return shown, "required", text
    return shown, _default(each), text


def _default(each: click.Parameter) -> str:
    value = each.default
    if value is None or value in ("", (), []) or value is False or callable(value):
        return ""
    if isinstance(each, click.Option) and each.is_flag:
        return code(each.opts[0])
    return code(value)


def _examples(command: click.Command) -> str:
    epilog = command.epilog or ""
    _, found, rest = epilog.partition("\b\n")
    return "\n".join(line[2:] if line.startswith("  ") else line for line in rest.splitlines()) if (
        found
    ) else ""
