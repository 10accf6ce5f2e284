"""Hostile archives: nothing is written outside of the directory, and no more than is stated."""

import gzip
import io
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from toolbus_cli.backup.archive import Extraction, small_archive
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import Chunk, Part
from toolbus_cli.backup.target import DirectoryTarget

Build = Callable[[tarfile.TarFile], None]


def entry(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, to, size
    return found


def archive(build: Build, form: int = tarfile.GNU_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        build(tar)
    return data.getvalue()


def extract(directory: Path, plain: bytes, *, entries: int = 9, size: int = 1 << 20) -> None:
    """Extract an archive whose digests are right, because an attacker can write a manifest."""
    packed = gzip.compress(plain)
    chunk = Chunk("part.000001", len(packed), sha256(packed).hexdigest())
    (directory / "backup").mkdir()
    (directory / "backup" / chunk.name).write_bytes(packed)
    (directory / "root").mkdir()
    part = Part("part", (chunk,), entries, size)
    Extraction(part, directory / "root").run(DirectoryTarget(directory / "backup"))


def written(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "part.000001"
    }


def added(*entries: tarfile.TarInfo) -> Build:
    def build(tar: tarfile.TarFile) -> None:
        for each in entries:
            tar.addfile(each, io.BytesIO(bytes(each.size)))

    return build


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/toolbus-out", "a//b", "./a", "a/./b", "x" * 5000]
)
def test_a_path_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackupError, match=r"points outside of it|no backup has"):
        extract(tmp_path, archive(added(entry(name, size=1))))
    assert written(tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("a/link", "/etc/passwd"),
        ("a/link", "../../etc"),
        ("a/link", "../etc"),
        ("link", "a"),
        ("a/b/link", "c/../../../etc"),
        ("a/link", ""),
        ("a/link", "b//c"),
    ],
)
def test_a_link_out_of_its_folder_is_refused(tmp_path: Path, name: str, to: str) -> None:
    link = entry(name, tarfile.SYMTYPE, to)
    with pytest.raises(BackupError, match="points outside of it"):
        extract(tmp_path, archive(added(link)), entries=1, size=0)
    assert not (tmp_path / "root" / name).is_symlink()


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    link = entry("a/b/link", tarfile.SYMTYPE, "../c")
    plain = archive(added(entry("a/c/one", size=1), link, entry("a/b/link/two", size=1)))
    with pytest.raises(BackupError, match="'a/b/link' twice"):
        extract(tmp_path, plain, entries=3, size=2)
    assert written(tmp_path / "root") == {"a/c/one", "a/b/link/two"}


@pytest.mark.parametrize(
    "kind",
    [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_other_entries_than_files_directories_and_links_are_refused(
    tmp_path: Path, kind: bytes
) -> None:
    with pytest.raises(BackupError, match="which no backup has"):
        extract(tmp_path, archive(added(entry("a", kind, "b"))))
    assert written(tmp_path) == set()


def test_headers_of_the_pax_form_are_refused_before_they_are_read(tmp_path: Path) -> None:
    plain = archive(added(entry("x" * 300, size=1)), tarfile.PAX_FORMAT)
    with pytest.raises(BackupError, match="which no backup has"):
        extract(tmp_path, plain)


def test_more_than_the_manifest_states_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="more entries or bytes than its manifest states"):
        extract(tmp_path, archive(added(entry("a", size=100), entry("b", size=101))), size=200)
    assert written(tmp_path) == {"root/a"}


def test_more_entries_than_the_manifest_states_are_not_written(tmp_path: Path) -> None:
    many = [entry(f"f{number}") for number in range(4)]
    with pytest.raises(BackupError, match="more entries or bytes than its manifest states"):
        extract(tmp_path, archive(added(*many)), entries=3)
    assert len(written(tmp_path)) == 3


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_file_of_the_same_name_is_not_replaced(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BackupError, match="twice"):
        extract(tmp_path, archive(added(entry("a", size=1), entry("a", kind))), entries=2, size=1)
    assert (tmp_path / "root" / "a").read_bytes() == b"\0"


@pytest.mark.parametrize("length", [100, 700, 1100])
def test_an_archive_that_ends_early_is_refused(tmp_path: Path, length: int) -> None:
    plain = archive(added(entry("a", size=600)))[:length]
    with pytest.raises(BackupError, match="damaged"):
        extract(tmp_path, plain, entries=1, size=601)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="truncated or not an archive"):
        extract(tmp_path, b"x" * 10_000)


@pytest.mark.parametrize(
    "build",
    [
        added(entry("../x", size=1)),
        added(entry("a", size=1), entry("a", size=1)),
        added(entry("a", tarfile.SYMTYPE, "b")),
        added(entry("a", tarfile.DIRTYPE)),
    ],
)
def test_sealed_keys_are_files_with_distinct_paths(build: Build) -> None:
    with pytest.raises(BackupError):
        small_archive(archive(build))
