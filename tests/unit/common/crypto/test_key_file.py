"""Key files: created atomically, for their owner only, and never created by mistake."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from toolbus_audit.settings import Settings as AuditSettings
from toolbus_audit.transparency_log.checkpoint import load_signer
from toolbus_common.crypto.key_file import KEY_BYTES, KeyFiles, load_key, read_key
from toolbus_common.nats.permissions import create_seeds


def test_a_key_is_created_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    made = load_key(path)
    assert len(made) == KEY_BYTES
    assert load_key(path) == read_key(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_required_key_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no key file"):
        read_key(tmp_path / "mistyped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"short", b"k" * (KEY_BYTES - 1)])
def test_a_file_of_another_length_is_rejected_with_a_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold .*remove it to create a new key"):
        load_key(tmp_path / "key")


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "client-state.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_key(path), range(64)))
    assert keys == {path.read_bytes()}
    assert [each.name for each in tmp_path.iterdir()] == ["client-state.key"]


def test_a_configured_key_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "client-state.key").write_bytes(b"g" * KEY_BYTES)
    before = tmp_path.stat().st_mtime_ns
    assert load_key(tmp_path / "client-state.key") == b"g" * KEY_BYTES
    assert tmp_path.stat().st_mtime_ns == before, "no other file was created"


def test_audits_signing_key_is_not_the_key_of_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLBUS_CLIENT_STATE_KEY_FILE", "/of/ingress")
    monkeypatch.setenv("TOOLBUS_EVIDENCE_KEY_FILE", "/of/audit")
    assert AuditSettings().signing_key == Path("/of/audit")


def test_creating_a_key_twice_keeps_the_first_and_no_temporary_file(
    tmp_path: Path,
) -> None:
    assert (
        load_signer("logs", tmp_path / "a" / "key.pem").verifier
        == load_signer("logs", tmp_path / "a" / "key.pem").verifier
    )
    assert create_seeds(tmp_path / "b") == create_seeds(tmp_path / "b")
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["key.pem"]
    assert {each.suffix for each in (tmp_path / "b").iterdir()} == {".seed"}


def test_changed_key_files_are_read_again_and_unreadable_ones_change_nothing(
    tmp_path: Path,
) -> None:
    path, following = tmp_path / "people.key", tmp_path / "people.next.key"
    files = KeyFiles(path)
    first = path.read_bytes()
    assert (files.current(), files.refresh()) == ((first,), False)
    following.write_bytes(b"half")
    assert files.current() == (first,)
    following.write_bytes(b"n" * KEY_BYTES)
    assert files.current() == (first, b"n" * KEY_BYTES)
    following.replace(path)
    assert (files.refresh(), files.keys) == (True, (b"n" * KEY_BYTES,))
    (tmp_path / "people.copy.key").write_bytes(b"n" * KEY_BYTES)
    assert (files.refresh(), files.keys) == (False, (b"n" * KEY_BYTES,))


def test_a_key_file_that_is_missing_for_a_moment_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "people.key"
    files = KeyFiles(path)
    first = files.keys
    path.unlink()
    assert (files.refresh(), files.keys) == (False, first)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"n" * KEY_BYTES)
    assert files.current() == (b"n" * KEY_BYTES,)
