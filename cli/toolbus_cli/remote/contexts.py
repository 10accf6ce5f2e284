"""Contexts: gateways on other machines that commands administer, and the one in use.

They are stored in `contexts.json` of the user's configuration directory, with an admin key each, so
only the user may read the file.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import read_json, write_private

VARIABLE = "TOOLBUS_CONTEXT"
LOCAL = "local"  # the installation on this machine
# Commands that work in a context, or do not use one.
REMOTE = (
    "apply", "approvals", "approve", "audit", "catalogue", "doctor", "explain", "get", "import",
    "keys", "reject", "status",
)  # fmt: skip
# Commands of these groups that work on a machine of the installation only.
NOT_REMOTE = ("audit backfill", "audit dead-letters retry", "audit forget", "audit hold")
ANYWHERE = ("context", "version")
_BY_API = "with the administration API (docs/how-to/administration-api.md)"
_INSTEAD = {
    "call": "with TOOLBUS_URL and TOOLBUS_KEY, and '--context local'",
    "connect": "with its option --url and '--context local'",
    **dict.fromkeys(("admins", "cache", "flow", "guards", "ledger", "runs"), _BY_API),
}


@dataclass(frozen=True, slots=True)
class Context:
    """A gateway on another machine. `ca` is a file of authorities; empty: those of the system."""

    name: str
    url: str
    admin_key: str = field(repr=False)
    ca: str = ""


def file() -> Path:
    """Return the path of the file of contexts."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "toolbus" / "contexts.json"


def stored() -> dict[str, Context]:
    """Return all contexts by name.

    Raises:
        CommandError: other users can read the file, or it has another form.

    """
    path = file()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CommandError(
            f"Other users can read '{path}', which has admin keys; run 'chmod 600 {path}', and "
            "replace the keys if others used this machine."
        )
    try:
        contexts = read_json(path).get("contexts", {})
        return {name: Context(name, **each) for name, each in contexts.items()}
    except (AttributeError, TypeError) as error:
        raise CommandError(
            f"'{path}' is not a file of contexts; remove it, and add them again with 'toolbus "
            "context add'."
        ) from error


def chosen_name() -> str:
    """Return the name of the context in use: the option's, the variable's or the stored one."""
    return os.environ.get(VARIABLE) or stored_name()


def stored_name() -> str:
    """Return the name of the context that `toolbus context use` set."""
    return str(read_json(file()).get("current") or LOCAL)


def chosen() -> Context | None:
    """Return the context in use; None for the installation on this machine.

    Raises:
        CommandError: there is no context of this name.

    """
    name = chosen_name()
    return None if name == LOCAL else named(name)


def named(name: str) -> Context:
    """Return the context of a name. Raises `CommandError` if there is none."""
    contexts = stored()
    if name not in contexts:
        raise CommandError(
            f"There is no context '{name}'; 'toolbus context list' shows all, and 'toolbus context "
            f"add {name} URL' adds it."
        )
    return contexts[name]


def store(contexts: dict[str, Context], current: str) -> None:
    """Replace the file of contexts."""
    path = file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries: dict[str, Any] = {name: asdict(each) for name, each in contexts.items()}
    for each in entries.values():
        del each["name"]
    write_private(path, {"current": current, "contexts": entries})


def check_command(words: Sequence[str]) -> None:
    """Reject a command that cannot work in the context in use. Raises `CommandError`."""
    line, command = " ".join(words), words[0]
    for each in NOT_REMOTE:
        if line == each or line.startswith(f"{each} "):
            command = each
    if command in (*ANYWHERE, *REMOTE) or (name := chosen_name()) == LOCAL:
        return
    instead = _INSTEAD.get(command)
    raise CommandError(
        f"'toolbus {command}' does not work in the context '{name}': it needs the machine or the "
        f"bus of the installation. Run it there{f', or do it {instead}' if instead else ''}. For "
        f"the installation on this machine, write 'toolbus --context {LOCAL} {command}'."
    )
