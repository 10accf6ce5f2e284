"""What the sealer states and signs: C2SP tlog-checkpoint in the form of signed-note."""

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
    """A log had `size` events and this root; the checkpoint before it `before`, and that root.

    `at` is seconds since the epoch. The last three are extension lines, which the form permits.
    """

    origin: str
    size: int
    root: bytes
    at: int
    before: int
    root_before: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return (
            f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"
            f"at {self.at}\nbefore {self.before} {_base64(self.root_before)}\n"
        )


class Signer:
    """The only holder of the sealing key; `name` is whose key it is."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._id = sha256(name.encode() + b"\n" + _ED25519 + self._public).digest()[:4]

    @property
    def verifier(self) -> str:
        """The public key, as `verify` wants it: what auditors are given, beforehand."""
        return f"{self.name}+{self._id.hex()}+{_base64(_ED25519 + self._public)}"

    def sign(self, checkpoint: Checkpoint) -> str:
        """The note: the text, an empty line, and a line with the signature."""
        signature = self._key.sign(checkpoint.text.encode())
        return f"{checkpoint.text}\n\u2014 {self.name} {_base64(self._id + signature)}\n"


def signer(name: str, path: Path) -> Signer:
    """The signer of the key in this file, made where there is none, readable by its owner only.

    Raises:
        ValueError: what is there is no Ed25519 key in PEM.

    """
    create_key(path, _new_key)
    data = path.read_bytes()
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return Signer(name, key)
    raise ValueError(f"{path} is no Ed25519 key in PEM without a password; put the right one there")


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
