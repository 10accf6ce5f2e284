"""Sealing of the keys, with a passphrase or for the owner of a public key.

The keys are encrypted with a random key (AES-256-GCM). A compact JWE (RFC 7516) contains this key:
PBES2-HS512+A256KW for a passphrase, ECDH-ES+A256KW for a public key (X25519 or P-256).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact, encrypt_compact
from joserfc.jwk import ECKey, OctKey, OKPKey

from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import PASSPHRASE, PUBLIC_KEY
from toolbus_common.crypto.aead import Aead, DecryptionError
from toolbus_common.crypto.key_file import KEY_BYTES

WRAPPED, SEALED = "keys.jwe", "keys.sealed"  # files of the backup
MIN_PASSPHRASE = 14  # characters; joserfc warns of shorter ones
MAX_SEALED = 16 << 20  # as large as one file of a backup may be
_ROUNDS = 300_000  # of PBKDF2; joserfc accepts no more
_CONTEXT = b"toolbus backup keys 1"
_BY_PASSPHRASE, _BY_KEY = "PBES2-HS512+A256KW", "ECDH-ES+A256KW"
_REGISTRY = JWERegistry(algorithms=[_BY_PASSPHRASE, _BY_KEY, "A256GCM"])
# joserfc checks the form of a JWE in part by assertions and look-ups.
_NOT_OPENED = (JoseError, ValueError, TypeError, AssertionError, LookupError, AttributeError)
_MAKE_KEY = "openssl genpkey -algorithm x25519"


@dataclass(frozen=True, slots=True)
class Lock:
    """The passphrase, or the key of a key pair, that encrypts the keys of a backup."""

    algorithm: str
    key: Any

    @property
    def kind(self) -> str:
        """The kind of secret that decrypts the keys, as the manifest names it."""
        return PASSPHRASE if self.algorithm == _BY_PASSPHRASE else PUBLIC_KEY

    def seal(self, plain: bytes) -> dict[str, bytes]:
        """Return the two files of sealed keys. Raises `BackupError`."""
        if len(plain) > MAX_SEALED - 1024:
            raise BackupError(
                f"The keys and small files have {len(plain)} bytes, more than {MAX_SEALED}; move "
                "large files of your own out of the state directory."
            )
        secret = os.urandom(KEY_BYTES)
        header: dict[str, Any] = {"alg": self.algorithm, "enc": "A256GCM"}
        if self.algorithm == _BY_PASSPHRASE:
            header["p2c"] = _ROUNDS
        try:
            wrapped = encrypt_compact(header, secret, self.key, registry=_REGISTRY)
        except (JoseError, ValueError) as error:
            raise BackupError(
                f"The keys cannot be sealed ({error}); give another public key or passphrase."
            ) from error
        return {WRAPPED: wrapped.encode(), SEALED: Aead(secret).seal(plain, _CONTEXT)}

    def open(self, files: dict[str, bytes]) -> bytes:
        """Return the keys. Raises `BackupError`."""
        try:
            secret = decrypt_compact(files[WRAPPED], self.key, registry=_REGISTRY).plaintext
            return Aead(secret or b"").open(files[SEALED], _CONTEXT)
        except DecryptionError as error:
            raise BackupError(f"'{SEALED}' was changed; use another copy of the backup.") from error
        except _NOT_OPENED as error:
            named = "passphrase" if self.algorithm == _BY_PASSPHRASE else "private key"
            raise BackupError(
                f"The keys cannot be decrypted with this {named}: it is not that of this backup, "
                f"or '{WRAPPED}' was changed."
            ) from error


def by_passphrase(text: str) -> Lock:
    """Return the lock of a passphrase. Raises `BackupError` if it is too short."""
    if len(text) < MIN_PASSPHRASE:
        raise BackupError(
            f"The passphrase has fewer than {MIN_PASSPHRASE} characters; use a longer one."
        )
    return Lock(_BY_PASSPHRASE, OctKey.import_key(text))


def by_key_file(path: Path, *, private: bool) -> Lock:
    """Return the lock of a key in PEM form. Raises `BackupError`."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise BackupError(
            f"'{path}' cannot be read ({error.strerror}); name another file."
        ) from error
    for kind in (OKPKey, ECKey):
        try:
            key: Any = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if private and not key.is_private:
            raise BackupError(f"'{path}' is a public key; name the private key of the backup.")
        if not private and key.is_private:
            raise BackupError(
                f"'{path}' is a private key, which does not belong on this machine; name the "
                "public key (openssl pkey -in KEY -pubout)."
            )
        return Lock(_BY_KEY, key)
    raise BackupError(
        f"'{path}' is not a PEM key of X25519 or P-256; create one with '{_MAKE_KEY}'."
    )
