"""Verification and restore of a backup."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from toolbus_cli.backup.archive import ChunkReader, Extraction, small_archive
from toolbus_cli.backup.create import BOUND, CONFIGURATION, KEYS
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import (
    FILE,
    MAX_MANIFEST,
    Manifest,
    Part,
    decoded,
    digest_without_keys,
)
from toolbus_cli.backup.sealed_keys import MAX_SEALED, SEALED, WRAPPED, Lock
from toolbus_cli.backup.stream_restore import restore_streams
from toolbus_cli.backup.target import Target

_SPARE = 64 << 20  # bytes that stay free after a restore


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the check of one part; `fault` is empty if the part is sound."""

    part: str
    size: int
    fault: str = ""


def read_manifest(target: Target) -> Manifest:
    """Return the manifest of a backup. Raises `BackupError`."""
    data = target.get(FILE, MAX_MANIFEST)
    if len(data) > MAX_MANIFEST:
        raise BackupError(f"'{FILE}' is larger than a manifest; use another copy of the backup.")
    return decoded(data)


def verify(manifest: Manifest, target: Target, lock: Lock | None) -> list[Verdict]:
    """Check every part, and with a lock also that it decrypts the keys."""
    found = [Verdict(part.name, part.size, _fault_of(part, target)) for part in manifest.parts]
    if lock is not None:
        try:
            opened = opened_keys(manifest, target, lock)
            found.append(Verdict("keys", sum(map(len, opened.values()))))
        except BackupError as error:
            found.append(Verdict("keys", 0, error.message))
    return found


def _fault_of(part: Part, target: Target) -> str:
    try:
        if part.stream is None:
            Extraction(part, None).run(target)
        else:
            ChunkReader(target, part.chunks).drain()
    except BackupError as error:
        return error.message
    return ""


def opened_keys(manifest: Manifest, target: Target, lock: Lock) -> dict[str, bytes]:
    """Return the sealed files. Raises `BackupError`, also if the manifest was changed."""
    files = {}
    for chunk in manifest.keys:
        files[chunk.name] = target.get(chunk.name, min(chunk.size, MAX_SEALED))
        chunk.check(files[chunk.name])
    if missing := {WRAPPED, SEALED} - files.keys():
        raise BackupError(
            f"'{FILE}' does not list '{min(missing)}'; use another copy of the backup."
        )
    found = small_archive(lock.open(files))
    if found.pop(BOUND, b"") != digest_without_keys(manifest):
        raise BackupError(
            f"'{FILE}' was changed: it is not the one that was sealed with the keys. Use another "
            "copy of the backup."
        )
    return found


def restore(manifest: Manifest, target: Target, lock: Lock, root: Path, config: Path) -> bool:
    """Restore a backup as a new state directory; return whether it has a configuration file.

    Nothing remains of a restore that fails. Raises `BackupError`.
    """
    _check_place(root, config, manifest)
    keys = opened_keys(manifest, target, lock)
    before = os.umask(0o077)  # directories are created for their owner only
    try:
        with _staged(root) as draft:
            for part in manifest.parts:
                if part.stream is None:
                    Extraction(part, draft).run(target)
            for name, data in keys.items():
                if name.startswith(KEYS):
                    _write(draft / name.removeprefix(KEYS), data)
            if snapshots := [part for part in manifest.parts if part.stream is not None]:
                restore_streams(draft, snapshots, target)
                _restrict(draft / "nats")
            os.sync()
        if CONFIGURATION in keys:
            _write(config, keys[CONFIGURATION])
    except OSError as error:
        raise BackupError(
            f"'{error.filename or root}' cannot be written ({error.strerror}); correct this and "
            "restore again."
        ) from error
    finally:
        os.umask(before)
    return CONFIGURATION in keys


def _check_place(root: Path, config: Path, manifest: Manifest) -> None:
    if root.is_symlink() or (root.exists() and (not root.is_dir() or any(root.iterdir()))):
        raise BackupError(
            f"'{root}' is not empty; name a new state directory with --state-dir, or move this "
            "one away."
        )
    if config.exists():
        raise BackupError(f"'{config}' exists; move it away, or name another file with --config.")
    parent = root.absolute().parent
    free = shutil.disk_usage(parent).free if parent.is_dir() else 0
    if manifest.size + _SPARE > free:
        raise BackupError(
            f"The restored files need {manifest.size >> 20} MiB, and '{parent}' has {free >> 20} "
            "MiB free or does not exist; name another directory with --state-dir."
        )


@contextmanager
def _staged(root: Path) -> Iterator[Path]:
    """Yield a directory that becomes `root` at the end, and is removed after an error."""
    draft = Path(mkdtemp(prefix=f".{root.name}.", dir=root.absolute().parent))
    try:
        yield draft
        draft.rename(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _restrict(folder: Path) -> None:
    """Make what NATS wrote accessible to its owner only."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
