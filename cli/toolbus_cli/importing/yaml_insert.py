"""Insertion of a server into an existing toolbus.yaml that preserves its comments."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from toolbus_cli.config_file import ConfigurationError
from toolbus_cli.errors import CommandError
from toolbus_cli.importing.client_servers import Taken, as_yaml
from toolbus_common.config_store.loading.loader import load

_SECTION = re.compile(r"^servers:[ \t]*(?:#.*)?$", re.MULTILINE)
_CHILD = re.compile(r"^([ \t]+)\S")


def with_server(text: str, name: str, server: dict[str, Any]) -> str:
    """Return the text with one more server. Raises `CommandError` if it cannot be inserted."""
    data = yaml.safe_load(text) or {}
    known = data.get("servers") if isinstance(data, dict) else None
    if isinstance(known, dict) and name in known:
        raise CommandError(f"A server '{name}' already exists; choose another name with --name.")
    shown = yaml.safe_dump({name: server}, sort_keys=False, allow_unicode=True)
    section = _SECTION.search(text)
    if section is None:
        if known is not None:
            raise CommandError(
                f"'servers' is written on one line; split it into lines, or add:\n{shown}"
            )
        return f"{text.rstrip()}\n\nservers:\n{_indented(shown, '  ')}".lstrip()
    rest = text[section.end() :].lstrip("\n")
    child = _CHILD.match(rest)
    indent = child[1] if child else "  "
    return f"{text[: section.end()]}\n{_indented(shown, indent)}{rest}"


def placed(path: Path, name: str, server: dict[str, Any]) -> str:
    """Return the contents of a file with the server added. Raises `CommandError`.

    If the file does not exist, the contents include a key that may use all tools.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return as_yaml(Taken({name: server}))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read; choose another file with -o.") from error
    try:
        made = with_server(text, name, server)
    except yaml.YAMLError as error:
        raise CommandError(f"{path} is not valid YAML; fix it first.") from error
    loaded = load(made, os.environ, path.resolve().parent)
    if loaded.problems:
        raise ConfigurationError(path, loaded.problems)
    return made


def write(path: Path, text: str) -> None:
    """Write a file atomically; only the owner can access a new file."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        made.replace(path)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise CommandError(
            f"{path} cannot be written ({error.strerror}); choose another file with -o."
        ) from error


def _indented(text: str, by: str) -> str:
    return "".join(f"{by}{line}\n" for line in text.splitlines())
