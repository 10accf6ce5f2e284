"""Archives of files: tar (GNU format), compressed with gzip, in chunks of a limited size.

An archive contains files, directories, and relative links that stay inside. On reading, everything
else is rejected, and no more is written than the manifest states.
"""

import gzip
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Self, cast

from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import CHUNK_BYTES, Chunk, Part
from toolbus_cli.backup.target import Target

_FILE, _DIRECTORY = 0o600, 0o700
_LONGEST_PATH = 4096
_LAST_TIME = 1 << 33
_PIECE = 1 << 20
_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LINK = re.compile(r"(\.\./)*[^/]+(/[^/]+)*")
_UNREADABLE = (
    tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, UnicodeError, RecursionError,
)  # fmt: skip


# -- writing -------------------------------------------------------------------------------------


class ChunkWriter:
    """File object that writes chunks to a target, and records their digests."""

    def __init__(self, target: Target, prefix: str) -> None:
        self.chunks: list[Chunk] = []
        self._target, self._prefix = target, prefix
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Take bytes; each full chunk is stored. Raises `BackupError`."""
        self._buffer += data
        while len(self._buffer) >= CHUNK_BYTES:
            self._store(bytes(self._buffer[:CHUNK_BYTES]))
            del self._buffer[:CHUNK_BYTES]
        return len(data)

    def flush(self) -> None:
        """Do nothing: chunks have their full size."""

    def finish(self) -> tuple[Chunk, ...]:
        """Store the rest, and return all chunks."""
        if self._buffer:
            self._store(bytes(self._buffer))
        return tuple(self.chunks)

    def _store(self, data: bytes) -> None:
        name = f"{self._prefix}.{len(self.chunks) + 1:06}"
        self._target.put(name, data)
        self.chunks.append(Chunk(name, len(data), sha256(data).hexdigest()))


def pack(root: Path, tops: list[str], name: str, target: Target) -> Part:
    """Write files and folders of a directory as one part. Raises `BackupError`."""
    found = ((path, path.relative_to(root).as_posix()) for path in files_below(root, tops))
    return pack_files(found, name, target)


def pack_files(files: Iterable[tuple[Path, str]], name: str, target: Target) -> Part:
    """Write files, each with its path in the archive, as one part. Raises `BackupError`."""
    chunks = ChunkWriter(target, f"{name}.tar.gz")
    entries = size = 0
    with (
        gzip.GzipFile("", "wb", 1, cast("IO[bytes]", chunks), mtime=0) as packed,
        tarfile.open(mode="w|", fileobj=packed, format=tarfile.GNU_FORMAT) as tar,
    ):
        for path, inside in files:
            size += add(tar, path, inside)
            entries += 1
    return Part(name, chunks.finish(), entries, size)


def add(tar: tarfile.TarFile, path: Path, name: str) -> int:
    """Add one file, directory or link; return the bytes of the file. Raises `BackupError`."""
    about, entry = path.lstat(), tarfile.TarInfo(name)
    entry.mtime = int(about.st_mtime)
    if path.is_symlink():
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        if not _LINK.fullmatch(entry.linkname) or not _is_inside(name, entry.linkname):
            raise BackupError(
                f"'{path}' is a link to '{entry.linkname}', which is outside of the state "
                "directory; replace the link with the files."
            )
        tar.addfile(entry)
        return 0
    if path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, _DIRECTORY
        tar.addfile(entry)
        return 0
    if not path.is_file():
        raise BackupError(f"'{path}' is neither a file nor a directory; remove it.")
    entry.size, entry.mode = about.st_size, _FILE
    with path.open("rb") as file:
        tar.addfile(entry, file)
    return entry.size


def files_below(root: Path, tops: list[str]) -> Iterator[Path]:
    """Yield paths and everything below them, directories before their contents."""
    for top in tops:
        path = root / top
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from files_below(path, sorted(each.name for each in path.iterdir()))


# -- reading -------------------------------------------------------------------------------------


class ChunkReader:
    """File object that reads the chunks of a part, each after a check of its digest."""

    def __init__(self, target: Target, chunks: tuple[Chunk, ...]) -> None:
        self._target, self._left = target, list(chunks)
        self._buffer = b""

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, and none at the end. Raises `BackupError`."""
        if not self._buffer and self._left:
            chunk = self._left.pop(0)
            data = self._target.get(chunk.name, chunk.size)
            chunk.check(data)
            self._buffer = data
        taken = self._buffer if size < 0 else self._buffer[:size]
        self._buffer = self._buffer[len(taken) :]
        return taken

    def drain(self) -> None:
        """Check the remaining chunks."""
        while self.read():
            pass


class _Entry(tarfile.TarInfo):
    """Entry of an archive; other types than those that `pack` writes are rejected."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header. Raises `BackupError` for types that no backup has."""
        found = super().frombuf(buf, encoding, errors)
        is_known = found.type in _TYPES or (found.type in _LONG and found.size <= _LONGEST_PATH)
        if not is_known or found.size < 0:
            raise BackupError(
                f"An archive contains {found.name!r} of the type {found.type!r}, which no backup "
                "has; use another copy of the backup."
            )
        return found


def small_archive(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive that is in memory. Raises `BackupError`."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=_Entry) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                name = _checked(entry.name)
                if file is None or name in found:
                    raise BackupError(
                        f"The sealed keys contain '{name}' twice, or not as a file; use another "
                        "copy of the backup."
                    )
                found[name] = file.read()
    except _UNREADABLE as error:
        raise BackupError(
            f"The sealed keys are not an archive ({error}); use another copy of the backup."
        ) from error
    return found


class Extraction:
    """The extraction of one part into a directory; without a directory, only its check."""

    def __init__(self, part: Part, root: Path | None) -> None:
        self._part, self._root = part, root
        self._entries = self._size = 0
        self._links: list[tuple[str, str]] = []

    def run(self, target: Target) -> None:
        """Check the whole part, and extract it. Raises `BackupError`."""
        reader = ChunkReader(target, self._part.chunks)
        self.read(cast("IO[bytes]", reader), "r|gz")
        reader.drain()
        self._make_links()

    def read(self, file: IO[bytes], mode: str) -> None:
        """Extract an archive. Raises `BackupError`."""
        opened: Any = tarfile.open  # its type requires a literal mode
        try:
            with opened(fileobj=file, mode=mode, tarinfo=_Entry) as tar:
                for entry in tar:
                    self._take(tar, entry)
                    tar.members = []  # else tarfile keeps all entries in memory
        except _UNREADABLE as error:
            raise self._damaged(f"it is truncated or not an archive: {error}") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise self._damaged(f"it contains '{Path(error.filename).name}' twice") from error
        if (self._entries, self._size) != (self._part.entries, self._part.size):
            raise self._damaged(
                f"it has {self._entries} entries with {self._size} bytes instead of "
                f"{self._part.entries} with {self._part.size}"
            )

    def _make_links(self) -> None:
        """Create the links last, so that no file can be written through one of them."""
        for name, to in self._links:
            self._link(name, to)

    def _take(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        name = _checked(entry.name)
        self._entries += 1
        self._size += entry.size if entry.isreg() else 0
        if self._entries > self._part.entries or self._size > self._part.size:
            raise self._damaged("it has more entries or bytes than its manifest states")
        if entry.issym():
            self._links.append((name, entry.linkname))
        elif self._root is not None and entry.isdir():
            (self._root / name).mkdir(_DIRECTORY, parents=True, exist_ok=True)
        elif entry.isreg():
            source = tar.extractfile(entry)
            if source is not None:
                self._write(source, name, entry)

    def _write(self, source: IO[bytes], name: str, entry: tarfile.TarInfo) -> None:
        if self._root is None:
            while source.read(_PIECE):
                pass
            return
        path = self._root / name
        path.parent.mkdir(_DIRECTORY, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, _FILE), "wb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
        changed = min(max(int(entry.mtime), 0), _LAST_TIME)
        os.utime(path, (changed, changed))

    def _link(self, name: str, to: str) -> None:
        if not _LINK.fullmatch(to) or not _is_inside(name, to):
            raise self._damaged(f"its link '{name}' points outside of it")
        if self._root is not None:
            path = self._root / name
            path.parent.mkdir(_DIRECTORY, parents=True, exist_ok=True)
            try:
                path.symlink_to(to)
            except FileExistsError as error:
                raise self._damaged(f"it contains '{name}' twice") from error

    def _damaged(self, reason: str) -> BackupError:
        return BackupError(
            f"The part '{self._part.name}' is damaged ({reason}); use another copy of the backup."
        )


def _checked(name: str) -> str:
    """Return a relative path inside the archive. Raises `BackupError` for any other path."""
    parts = name.split("/")
    if len(name) > _LONGEST_PATH or "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
        raise BackupError(
            f"An archive contains the path {name[:100]!r}, which points outside of it; use another "
            "copy of the backup."
        )
    return name


def _is_inside(name: str, to: str) -> bool:
    """Return whether a link stays in the first folder of its path, with '..' only at its start."""
    up = to.split("/").count("..")
    rest = to.split("/")[up:]
    return ".." not in rest and up < name.count("/")
