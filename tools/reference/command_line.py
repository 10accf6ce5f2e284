"""Every command of `toolbus` with its arguments, options and examples."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from typer.core import TyperArgument, TyperGroup

from reference.markdown import code, table
from reference.types import type_of
from toolbus_cli.app import with_every_command

PROGRAM = "toolbus"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command and group below `toolbus` by its full name, in the order of `--help`."""
    yield from _below(PROGRAM, with_every_command())


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
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
            if not isinstance(command, TyperGroup)
        ),
    )
    sections = (
        _section(name, command) for name, command in found if not isinstance(command, TyperGroup)
    )
    return "\n\n".join([f"## Commands\n\n{overview}", *sections])


def _first_line(command: Any) -> str:
    return (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")


def _section(name: str, command: Any) -> str:
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [_shown_argument(each) for each in shown if isinstance(each, TyperArgument)]
    usage = " ".join([name, "[OPTIONS]", *arguments])
    parts = [f"## {name}", _help(command), f"```text\n{usage}\n```"]
    types = get_type_hints(inspect.unwrap(command.callback))
    rows = [_row(each, types) for each in shown]
    if rows:
        parts.append(table(("argument or option", "type", "default", "description"), rows))
    examples = _examples(command)
    if examples:
        parts.append(f"Examples:\n\n```text\n{examples}\n```")
    return "\n\n".join(filter(None, parts))


def _shown_argument(each: Any) -> str:
    shown = each.name.upper() + ("..." if each.nargs == -1 else "")
    return shown if each.required else f"[{shown}]"


def _help(command: Any) -> str:
    """Return the help text; a paragraph that begins with a backspace retains its line breaks."""
    shown = []
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        if paragraph.startswith("\b"):
            shown.append("```text\n" + paragraph.removeprefix("\b").strip("\n") + "\n```")
        else:
            shown.append(" ".join(paragraph.split()))
    return "\n\n".join(shown)


def _row(each: Any, types: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return the names, type, default and help text of an argument or option."""
    text = each.help or ""
    if each.envvar:
        variables = [each.envvar] if isinstance(each.envvar, str) else each.envvar
        text += f" Environment: {', '.join(map(code, variables))}."
    names = [each.name.upper()] if isinstance(each, TyperArgument) else _options(each)
    return ", ".join(map(code, names)), _type(each, types.get(each.name)), _default(each), text


def _options(each: Any) -> list[str]:
    return [*each.opts, *each.secondary_opts]


def _type(each: Any, annotation: Any) -> str:
    if getattr(each, "is_flag", False):
        return ""
    shown = type_of(annotation)
    return f"{shown}, repeatable".removeprefix("list of ") if each.multiple else shown


def _default(each: Any) -> str:
    if each.required:
        return "required"
    value = each.default
    if value is None or callable(value) or value in ("", (), []) or getattr(each, "is_flag", False):
        return ""
    return code(value)


def _examples(command: Any) -> str:
    epilog = command.epilog or ""
    _, _, rest = epilog.partition("\b\n")
    return "\n".join(line.removeprefix("  ") for line in rest.splitlines())
