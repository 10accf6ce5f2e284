"""Commands that create, verify and restore backups."""

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.backup.contents import CONTENTS, STREAM
from toolbus_cli.backup.create import create as write_backup
from toolbus_cli.backup.create import create_running
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import PUBLIC_KEY, Manifest
from toolbus_cli.backup.restore import Verdict, read_manifest
from toolbus_cli.backup.restore import restore as restore_backup
from toolbus_cli.backup.restore import verify as check_backup
from toolbus_cli.backup.sealed_keys import Lock, by_key_file, by_passphrase
from toolbus_cli.backup.target import DirectoryTarget, Target
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.installation import find, joined
from toolbus_cli.state_dir import State

PASSPHRASE_VARIABLE = "TOOLBUS_BACKUP_PASSPHRASE"  # noqa: S105 - its name
DEFAULT_CONFIG = Path("toolbus.yaml")

TargetName = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A directory, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help=f"A file with the passphrase of the keys. Default: {PASSPHRASE_VARIABLE}, or a prompt."
    ),
]
PrivateKey = Annotated[
    Path | None,
    typer.Option(help="The private key (PEM) of a backup that was made with --recipient."),
]


def create(
    target: TargetName,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="The configuration file; default: ./toolbus.yaml if it exists.",
        ),
    ] = None,
    recipient: Annotated[
        Path | None,
        typer.Option(
            help="Seal the keys for the owner of this public key (PEM, X25519 or P-256), without "
            "a passphrase."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Back up an installation on one machine. It may be running.

    The keys and the configuration file are encrypted; the other parts are not.
    """
    state, place = State(state_dir), _target(target)
    if not state.root.is_dir():
        raise BackupError(f"'{state_dir}' does not exist; name the directory with --state-dir.")
    if config is not None and not config.is_file():
        raise BackupError(f"'{config}' does not exist; name the configuration file.")
    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    lock = (
        by_key_file(recipient, private=False)
        if recipient is not None
        else by_passphrase(_passphrase(passphrase_file, confirm=True))
    )
    if state.alive():
        manifest = asyncio.run(_of_running(state, config, place, lock))
    else:
        with state.locked(say):
            manifest = write_backup(state, config, place, lock)
    if as_json:
        show_json(_summary(manifest))
        return
    size = sum(chunk.size for part in manifest.parts for chunk in part.chunks)
    say(
        f"Backed up {len(manifest.parts)} parts in {target}, {_shown(size)}, and the keys "
        f"{'with' if config else 'without'} a configuration file.",
        f"Point of loss: {manifest.complete_until}. Later changes are not in the backup.",
        f"Check it with 'toolbus backup verify {target}'.",
    )


def verify(
    target: TargetName,
    *,
    passphrase_file: PassphraseFile = None,
    private_key: PrivateKey = None,
    without_keys: Annotated[
        bool,
        typer.Option("--without-keys", help="Check the digests only; do not decrypt the keys."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the digests of a backup and decrypt its keys. The exit code is 1 if it is damaged."""
    place = _target(target)
    manifest = read_manifest(place)
    lock = None if without_keys else _lock(manifest, passphrase_file, private_key)
    found = check_backup(manifest, place, lock)
    faults = [each.fault for each in found if each.fault]
    if as_json:
        show_json({**_summary(manifest), "verdicts": [asdict(each) for each in found]})
    else:
        _show(manifest, found)
        if lock is None:
            say("The keys were not decrypted.")
        say(*faults, "The backup is damaged." if faults else "The backup is sound.")
    raise typer.Exit(1 if faults else 0)


def restore(
    target: TargetName,
    *,
    config: Annotated[
        Path,
        typer.Option("-c", "--config", help="Where the configuration file is written."),
    ] = DEFAULT_CONFIG,
    passphrase_file: PassphraseFile = None,
    private_key: PrivateKey = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Restore a backup as a new state directory, which must be empty or missing."""
    place = _target(target)
    manifest = read_manifest(place)
    lock = _lock(manifest, passphrase_file, private_key)
    configured = restore_backup(manifest, place, lock, state_dir, config)
    if as_json:
        show_json({**_summary(manifest), "state_dir": str(state_dir), "configured": configured})
        return
    where = "" if state_dir == DEFAULT_STATE else f" --state-dir {state_dir}"
    option = f" -c {config}" if configured and config != DEFAULT_CONFIG else ""
    say(
        f"Restored '{state_dir}'" + (f" and '{config}'." if configured else "."),
        f"It has what was recorded until {manifest.complete_until}; later changes are lost.",
        "Next:",
        "  1. Never start the original again: both would continue the same signed log.",
        f"  2. Start it: toolbus up{where}{option}",
        f"  3. Check it: toolbus doctor{where}; toolbus ledger show{where}",
        "  4. Repeat the erasures since the backup: toolbus audit forget PERSON",
    )


async def _of_running(state: State, config: Path | None, target: Target, lock: Lock) -> Manifest:
    async with joined(find(state.root)) as bus:
        return await create_running(state, config, target, lock, bus)


def _target(name: str) -> Target:
    if "://" not in name:
        return DirectoryTarget(Path(name))
    from toolbus_cli.backup.bucket_target import bucket_files  # noqa: PLC0415

    return bucket_files(name)


def _lock(manifest: Manifest, passphrase_file: Path | None, private_key: Path | None) -> Lock:
    if manifest.sealed_by == PUBLIC_KEY:
        if private_key is None:
            raise BackupError(
                "The keys were sealed with --recipient; name the private key with --private-key."
            )
        return by_key_file(private_key, private=True)
    if private_key is not None:
        raise BackupError("The keys were sealed with a passphrase; omit --private-key.")
    return by_passphrase(_passphrase(passphrase_file, confirm=False))


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    if file is not None:
        try:
            return file.read_text().rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise BackupError(
                f"'{file}' cannot be read as text ({error}); name another file."
            ) from error
    if text := os.environ.get(PASSPHRASE_VARIABLE):
        return text
    if not sys.stdin.isatty():
        raise BackupError(
            f"There is no passphrase; set {PASSPHRASE_VARIABLE}, name a file with "
            "--passphrase-file, or seal the keys with --recipient."
        )
    found: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    return found


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "created": manifest.created,
        "complete_until": manifest.complete_until,
        "taken": manifest.taken,
        "sealed_by": manifest.sealed_by,
        "versions": manifest.versions,
        "parts": {part.name: part.size for part in manifest.parts},
        "absent": _absent(manifest),
    }


def _absent(manifest: Manifest) -> dict[str, str]:
    there = {part.name for part in manifest.parts}
    there |= {STREAM for part in manifest.parts if part.stream is not None}
    return {each.part: each.without for each in CONTENTS if each.part not in there}


def _show(manifest: Manifest, found: list[Verdict]) -> None:
    say(
        f"Made {manifest.created} by Toolbus {manifest.versions.get('toolbus', 'unknown')} of a "
        f"{manifest.taken} installation.",
        f"Point of loss: {manifest.complete_until}.",
        "",
    )
    rows = [(each.part, _shown(each.size), "damaged" if each.fault else "sound") for each in found]
    rows += [(name, "", f"not in the backup: {why}") for name, why in _absent(manifest).items()]
    show_table(("part", "size", "state"), rows, "The backup has no part.")
    say("")


def _shown(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
