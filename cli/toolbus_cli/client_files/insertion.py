"""Insertion of a server into the text of a client's file, which keeps everything else (no I/O)."""

import json
import re
import tomllib
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_common.agent_clients.configurations import AgentClient, as_text

_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def inserted(client: AgentClient, text: str, added: dict[str, Any], file: str) -> str:
    """Return the text of a client's file with the servers of `added`.

    A server of the same name is replaced. Everything else in the file stays as it is.

    Raises:
        CommandError: the file has an unexpected form, or comments that would be lost; the message
            includes what to paste.

    """
    try:
        return _in_toml(client, text, added) if client.toml else _in_json(text, added)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CommandError(
            f"{file} cannot be changed without loss ({reason}). Add this yourself:\n"
            f"{as_text(client, added)}"
        ) from error


def _in_json(text: str, added: dict[str, Any]) -> str:
    """Return JSON with the members of `added`, two levels deep. Raises `ValueError`."""
    data = json.loads(text) if text.strip() else {}
    if not isinstance(data, dict):
        raise ValueError("the file is not a JSON object")  # noqa: TRY004 - for one reader
    for section, entries in added.items():
        data[section] = _joined(section, data.get(section), entries)
    indent = _INDENT.search(text)
    width: str | int = indent[1] if indent else 2
    return json.dumps(data, indent=width, ensure_ascii=False) + "\n"


def _joined(section: str, known: Any, entries: Any) -> Any:
    """Return a section with its new entries: an object by name, a list by the member `id`."""
    if known is not None and type(known) is not type(entries):
        kind = "an object" if isinstance(entries, dict) else "a list"
        raise ValueError(f"'{section}' is not {kind}")
    if isinstance(entries, dict):
        return {**(known or {}), **entries}
    ids = {each["id"] for each in entries}
    others = [
        each for each in known or [] if not (isinstance(each, dict) and each.get("id") in ids)
    ]
    return [*others, *entries]


def _in_toml(client: AgentClient, text: str, added: dict[str, Any]) -> str:
    """Return TOML in which the tables of `added` stand at the end. Raises `ValueError`."""
    before = tomllib.loads(text)
    known = before.get(client.section, {})
    if not isinstance(known, dict):
        raise ValueError(f"'{client.section}' is not a table")  # noqa: TRY004 - for one reader
    entries = added[client.section]
    rest = text
    for name in entries.keys() & known.keys():
        rest = _without_table(rest, f"{client.section}.{name}")
    tables = as_text(client, added)
    made = f"{rest.rstrip()}\n\n{tables}" if rest.strip() else tables
    expected = {**before, client.section: {**known, **entries}}
    if tomllib.loads(made) != expected:
        raise ValueError("it has an inline table, or a server in several tables")
    return made


def _without_table(text: str, name: str) -> str:
    """Return TOML without the lines of a table and of its inner tables."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            header = line.strip().strip("[]").split("]")[0].replace('"', "").replace(" ", "")
            inside = header == name or header.startswith(f"{name}.")
        if not inside:
            kept.append(line)
    return "".join(kept)
