"""Sealing of the keys of a backup: with a passphrase, and for the owner of a key."""

from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from harness.samples.state_dirs import key_files
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.sealed_keys import (
    MAX_SEALED,
    SEALED,
    WRAPPED,
    Lock,
    by_key_file,
    by_passphrase,
)

PASSPHRASE = "correct horse battery staple"
PLAIN = b"the keys"


@pytest.mark.parametrize("kind", ["x25519", "p256"])
def test_only_the_owner_of_the_private_key_opens_what_was_sealed_for_the_public_key(
    tmp_path: Path, kind: str
) -> None:
    private, public = key_files(tmp_path, kind)
    sealed = by_key_file(public, private=False).seal(PLAIN)
    assert by_key_file(private, private=True).open(sealed) == PLAIN
    other, _ = key_files(tmp_path, kind)
    with pytest.raises(BackupError, match="cannot be decrypted with this private key"):
        by_key_file(other, private=True).open(sealed)


def test_only_the_passphrase_opens_what_it_sealed() -> None:
    sealed = by_passphrase(PASSPHRASE).seal(PLAIN)
    assert by_passphrase(PASSPHRASE).open(sealed) == PLAIN
    with pytest.raises(BackupError, match="cannot be decrypted with this passphrase"):
        by_passphrase(PASSPHRASE + ".").open(sealed)
    assert PLAIN not in b"".join(sealed.values())


def test_the_form_of_the_sealed_keys_is_a_compact_jwe() -> None:
    header = by_passphrase(PASSPHRASE).seal(PLAIN)[WRAPPED].split(b".")[0]
    assert b'"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":300000' in _decoded(header)


@pytest.mark.parametrize("name", [WRAPPED, SEALED])
def test_each_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    private, public = key_files(tmp_path)
    sealed = by_key_file(public, private=False).seal(PLAIN)
    lock = by_key_file(private, private=True)
    for position in range(len(sealed[name])):
        changed = bytearray(sealed[name])
        changed[position] ^= 2
        with pytest.raises(BackupError):
            lock.open({**sealed, name: bytes(changed)})


def test_a_passphrase_of_less_than_fourteen_characters_is_refused() -> None:
    with pytest.raises(BackupError, match="fewer than 14 characters"):
        by_passphrase("correct horse")


def test_more_than_fits_in_one_file_is_refused(tmp_path: Path) -> None:
    lock = by_key_file(key_files(tmp_path)[1], private=False)
    with pytest.raises(BackupError, match="move large files"):
        lock.seal(bytes(MAX_SEALED))


def test_a_key_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    private, public = key_files(tmp_path)
    no_key = tmp_path / "no.key"
    no_key.write_text("x")
    with pytest.raises(BackupError, match="is a private key, which does not belong"):
        by_key_file(private, private=False)
    with pytest.raises(BackupError, match="is a public key; name the private key"):
        by_key_file(public, private=True)
    with pytest.raises(BackupError, match="is not a PEM key"):
        by_key_file(no_key, private=True)
    with pytest.raises(BackupError, match="cannot be read"):
        by_key_file(tmp_path / "missing", private=True)


def test_a_lock_of_a_passphrase_does_not_open_what_was_sealed_for_a_key(tmp_path: Path) -> None:
    _, public = key_files(tmp_path)
    sealed = by_key_file(public, private=False).seal(PLAIN)
    lock: Lock = by_passphrase(PASSPHRASE)
    with pytest.raises(BackupError, match="cannot be decrypted"):
        lock.open(sealed)


def _decoded(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
