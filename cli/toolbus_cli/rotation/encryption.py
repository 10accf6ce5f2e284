"""Replacement of the keys that encrypt literal secrets in the configuration.

The keys of all services that read secrets are replaced together, with the key of the digests by
which writers recognize unchanged values. Each stage can be repeated after an interruption.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from toolbus_cli.config_client import opened
from toolbus_cli.errors import CommandError
from toolbus_cli.rotation import key_files, replicas
from toolbus_cli.state_dir import State, write_private
from toolbus_common.config import Configuration
from toolbus_common.config_store.literal_secrets import (
    DIGESTS,
    READERS,
    WRITERS,
    Writer,
    decrypted_by_all,
    for_writers,
    sealed_with_others,
)
from toolbus_common.crypto.key_file import accepted_keys, create_key, read_key
from toolbus_common.nats.connection import Bus

_USED = "encryption"  # the name under which services compare their key
_WRITING = "policy"  # compares the key of digests


def prepared(directory: Path) -> str:
    """Create the next keys. Raises `CommandError`."""
    paths = _paths(directory)
    for path in paths:
        key_files.prepared(path)
    _write(directory, paths, switched=())
    return f"The next keys are in '{directory}', and are accepted. The earlier ones are in use."


def switched(directory: Path) -> str:
    """Encrypt secrets with the next keys, and keep the earlier ones. Raises `CommandError`."""
    paths = _paths(directory)
    following = [path for path in paths if key_files.next_of(path).exists()]
    if not following:
        raise CommandError(f"There is no next key in '{directory}'; run '--stage prepare' first.")
    _write(directory, paths, switched=following)  # first: a repeated switch writes it too
    for path in following:
        key_files.switched(path)
    return f"'{directory}' has the new keys and a new {WRITERS}. The earlier keys are accepted."


async def finished(bus: Bus, state: State, directory: Path) -> str:
    """Encrypt the stored secrets with the keys in use, and remove the earlier ones.

    Raises `CommandError` if a service does not use its key yet, or a secret cannot be decrypted.
    """
    paths = _paths(directory)
    for path in paths:
        key_files.require_switched(path)
    users = {path.stem.replace(DIGESTS, _WRITING): read_key(path) for path in paths}
    await replicas.require(bus, _USED, users, in_use=True)

    def again(stored: Configuration) -> Configuration:
        try:
            return decrypted_by_all(directory, stored)
        except ValueError as error:
            raise CommandError(f"{error}. No key file was removed.") from error

    async with opened(bus, state) as repository:
        applied = await repository.change(again, (await repository.declared()).by)
        if left := sealed_with_others(directory, (await repository.declared()).configuration):
            raise CommandError(
                f"Meanwhile, {', '.join(left)} was encrypted with an earlier key; no key file was "
                f"removed. Copy {WRITERS} to policy and to operators, restart policy, and repeat "
                "the command."
            )
    if applied.changes:
        await asyncio.sleep(key_files.STORED_SECONDS)
    for path in paths:
        key_files.finished(path)
    _write(directory, paths, switched=())
    return (
        f"Entries that were encrypted again: {len(applied.changes)}. The earlier keys were removed."
    )


def _write(directory: Path, paths: Sequence[Path], switched: Sequence[Path]) -> None:
    """Write the file for writers: the keys in use, or the next ones of those that are switched."""
    keys = {
        path.stem: read_key(key_files.next_of(path) if path in switched else path) for path in paths
    }
    used, known = keys.pop(DIGESTS), accepted_keys(directory / f"{DIGESTS}.key")
    digests = dict.fromkeys((used, *known))
    write_private(directory / WRITERS, for_writers([*digests], keys))


def _paths(directory: Path) -> list[Path]:
    """Return the key files, also that of digests. Raises `CommandError` if one is missing."""
    paths = [directory / f"{name}.key" for name in READERS]
    for path in paths:
        if not path.exists():
            raise CommandError(
                f"There is no key file '{path}'; name the state directory that has the keys of "
                "all services."
            )
    digests = directory / f"{DIGESTS}.key"
    create_key(digests, lambda: Writer.at(directory).accepted[0])
    return [*paths, digests]
