"""The command that lists the keys of an installation, and replaces keys that replicas share."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.backup.live_parts import only_one
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_cli.rotation import encryption, key_files, people
from toolbus_common.crypto.key_file import keys_beside
from toolbus_common.settings import Settings

DAY_SECONDS = 86_400.0
PAGE = "docs/how-to/key-rotation.md"


class Stage(StrEnum):
    """A stage of a rotation. All replicas restart after each stage."""

    PREPARE = "prepare"
    SWITCH = "switch"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Key:
    """A kind of keys: its files in the state directory, and how they are replaced.

    If the environment variable `variable` is set, its value is the key's file. `users` are the
    services that must be restarted during a rotation of the key.
    """

    name: str
    files: str
    how: str
    variable: str = ""
    users: str = ""

    def paths(self, state_dir: Path) -> list[Path]:
        """Return the files that exist."""
        if named := self.variable and os.environ.get(self.variable):
            path = Path(named)
            found = sorted(path.glob(Path(self.files).name)) if path.is_dir() else [path]
        else:
            found = sorted(state_dir.glob(self.files)) if self.files else []
        beside = keys_beside(found[0]) if self.how == _SHARED and found else []
        return [path for path in dict.fromkeys((*found, *beside)) if path.exists()]

    def file(self, state_dir: Path) -> Path:
        """Return the file of a key that this command replaces."""
        return Path(os.environ.get(self.variable) or state_dir / self.files)


_MONTHLY = "by itself: a new key every 30 days, the earlier one is accepted for 2 more days"
_SHARED = "toolbus rotate"
_ENCRYPTION_DIR = "TOOLBUS_ENCRYPTION_DIR"
_BESIDE = "accepted too: the rotation is not finished"
KEYS = (
    Key("client-state", "client-state.key", _SHARED, "TOOLBUS_CLIENT_STATE_KEY_FILE", "ingress"),
    Key("policy", "policy.key", _SHARED, "TOOLBUS_POLICY_KEY", "policy"),
    Key("oauth-signing", "oauth-signing.json", _MONTHLY, "TOOLBUS_OAUTH_SIGNING_FILE"),
    Key("oauth-client", "oauth-client.json", _MONTHLY, "TOOLBUS_OAUTH_CLIENT_FILE"),
    Key("oauth-identity", "oauth-identity.json", _MONTHLY, "TOOLBUS_OAUTH_IDENTITY_FILE"),
    Key("vault", "oauth-vault.key", "TOOLBUS_OAUTH_EARLIER_VAULTS", "TOOLBUS_OAUTH_VAULT_FILE"),
    Key("oauth", "oauth.key", _SHARED, "TOOLBUS_OAUTH_KEY_FILE", "oauth"),
    Key("people", "people.key", _SHARED, "TOOLBUS_PEOPLE_KEY"),
    Key("encryption", "encryption/*.key", _SHARED, "TOOLBUS_ENCRYPTION_DIR"),
    Key("evidence", "evidence/key.pem", "a new log key", "TOOLBUS_EVIDENCE_KEY_FILE"),
    Key("nats", "nkeys/*.seed", "a second user at NATS"),
    Key("nats-cluster", "cluster.key", "not possible without an interruption"),
    Key("valkey", "valkey/password", "a second password at Valkey"),
    Key("certificate", "", "replace the files", "TOOLBUS_TLS_CERT"),
    Key("keys of agents", "", "toolbus keys create, then revoke"),
    Key("admin keys", "", "toolbus admins create, then revoke"),
    Key("secrets of servers", "", "at their store"),
    Key("secrets of webhooks", "", "two values during the change"),
    Key("clickhouse", "", "a second user at ClickHouse"),
)
_ROTATED = {each.name: each for each in KEYS if each.how == _SHARED}


def rotate(
    key: Annotated[
        str,
        typer.Argument(
            help="The key to replace: client-state, policy, oauth, people or encryption."
        ),
    ] = "",
    *,
    stage: Annotated[Stage, typer.Option(help="The stage of the rotation.")] = Stage.PREPARE,
    now: Annotated[
        bool,
        typer.Option("--now", help="Finish even if redacted values can no longer be restored."),
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List all keys and their age.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the keys of an installation, or replace a key that its services share.

    A rotation has three stages: 'prepare' adds the next key, 'switch' uses it, and 'finish' removes
    the earlier keys. After each stage, restart all replicas of the service, one after the other.
    For 'people', copy the files to the replicas instead: they read them again by themselves. For
    'encryption', use the directory that has the keys of all services.
    """
    if listed or not key:
        _show(state_dir, as_json=as_json)
        return
    if key not in _ROTATED:
        raise CommandError(
            f"This command does not replace '{key}', only {', '.join(_ROTATED)}; {PAGE} says "
            "how each key is replaced."
        )
    chosen = _ROTATED[key]
    if key == "encryption":
        say(_encryption(stage, state_dir), "Restart all replicas of executor, audit, oauth and "
            "policy with these files, one after the other.")  # fmt: skip
        return
    path = chosen.file(state_dir)
    if not path.exists():
        raise CommandError(f"There is no key file '{path}'; name the state directory that has it.")
    if chosen.users:
        say(_STAGES[stage](path), f"Restart all replicas of {chosen.users} with these files, one "
            "after the other.")  # fmt: skip
    else:
        say(_people(stage, path, state_dir, now=now), "Copy these files to every replica.")


def _people(stage: Stage, path: Path, state_dir: Path, *, now: bool) -> str:
    place = find(state_dir)

    async def work() -> str:
        async with joined(place) as bus:
            if stage is Stage.SWITCH:
                return await people.switched(bus, path)
            return await people.finished(bus, path, now=now)

    with _without_backup(state_dir):
        return key_files.prepared(path) if stage is Stage.PREPARE else asyncio.run(work())


def _encryption(stage: Stage, state_dir: Path) -> str:
    directory = Settings(state_dir=state_dir).encryption
    if stage is not Stage.FINISH:
        change = encryption.prepared if stage is Stage.PREPARE else encryption.switched
        with _without_backup(state_dir):
            return change(directory)
    place = find(state_dir)

    async def work() -> str:
        async with joined(place) as bus:
            return await encryption.finished(bus, place.state, directory)

    with _without_backup(state_dir):
        return asyncio.run(work())


def _without_backup(state_dir: Path) -> AbstractContextManager[None]:
    """Prevent a backup during the rotation, because a backup copies the buckets before the keys.

    Raises `CommandError`.
    """
    if not state_dir.is_dir():
        raise CommandError(f"There is no state directory '{state_dir}'; name the one of the keys.")
    return only_one(state_dir)


def _show(state_dir: Path, *, as_json: bool) -> None:
    rows = list(_rows(state_dir))
    if as_json:
        show_json([{"key": key, "file": file, "days": days, "how": how}
                   for key, file, days, how in rows])  # fmt: skip
        return
    shown = [(key, file, "" if days is None else f"{days} d", how) for key, file, days, how in rows]
    show_table(("key", "file", "age", "replaced by"), shown, "No key was found.")
    say("", f"The steps for each key: {PAGE}.")


def _rows(state_dir: Path) -> Iterator[tuple[str, str, int | None, str]]:
    for each in KEYS:
        paths = each.paths(state_dir)
        for path in paths:
            days = int((time.time() - path.stat().st_mtime) / DAY_SECONDS)
            beside = each.how == _SHARED and "." in path.stem
            yield each.name, str(path), days, _BESIDE if beside else each.how
        if not paths:
            yield each.name, "", None, each.how


_STAGES = {
    Stage.PREPARE: key_files.prepared,
    Stage.SWITCH: key_files.switched,
    Stage.FINISH: key_files.finished,
}
