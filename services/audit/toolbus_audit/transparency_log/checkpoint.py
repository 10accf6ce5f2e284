"""Signed checkpoints: C2SP tlog-checkpoint in the form of signed-note."""

from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from toolbus_common.crypto.key_file import create_key

_ED25519 = b"\x01"  # the algorithm's number in signed-note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of a log, with size and root of the previous checkpoint.

    `at` is in Unix seconds. The last three fields are extension lines, which the format permits.
    """

    origin: str
    size: int
    root: bytes
    at: int
    previous_size: int
    previous_root: bytes

    @property
    def text(self) -> str:
        """Text that is signed."""
        return (
            f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"
            f"at {self.at}\nbefore {self.previous_size} {_base64(self.previous_root)}\n"
        )


class Signer:
    """Signer of checkpoints; `name` is the name of the key and the origin of logs."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._id = sha256(name.encode() + b"\n" + _ED25519 + self._public).digest()[:4]

    @property
    def verifier(self) -> str:
        """Public key in the form that `toolbus audit verify` and auditors use."""
        return f"{self.name}+{self._id.hex()}+{_base64(_ED25519 + self._public)}"

    @property
    def private(self) -> bytes:
        """The private key."""
        return self._key.private_bytes_raw()

    def sign(self, checkpoint: Checkpoint) -> str:
        """Return the signed note: the text, an empty line, and the signature line."""
        signature = self._key.sign(checkpoint.text.encode())
        return f"{checkpoint.text}\n\u2014 {self.name} {_base64(self._id + signature)}\n"


def load_signer(name: str, path: Path) -> Signer:
    """Load the signing key, or create it in a file that only its owner can read.

    Raises:
        ValueError: the file is not an Ed25519 key in PEM.

    """
    create_key(path, _new_key)
    data = path.read_bytes()
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return Signer(name, key)
    raise ValueError(
        f"{path} is not an Ed25519 key in PEM without a password; restore the right key there"
    )


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
