"""What is said to a witness and what it answers, as C2SP tlog-witness and tlog-cosignature say."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from toolbus_common.config.audit.retention import Cosigner

_ID, _STAMP = 4, 8  # bytes
_WORDS = 3


def request_of(old: int, proof: Iterable[bytes], note: str) -> bytes:
    """The body of add-checkpoint: the size the witness knows, the proof, and the checkpoint."""
    hashes = "".join(f"{b64encode(each).decode()}\n" for each in proof)
    return f"old {old}\n{hashes}\n{note}".encode()


def size_told(body: bytes) -> int | None:
    """The size a witness knows, as it answers with 409; None where it tells none."""
    told = body.strip()
    return int(told) if told.isdigit() and len(told) < 20 else None  # noqa: PLR2004


def cosignatures(answer: bytes, note: str, by: Cosigner) -> list[str]:
    """The lines of an answer with which this witness cosigned the checkpoint; others are left."""
    text = note.rpartition("\n\n")[0].encode() + b"\n"
    with suppress(UnicodeDecodeError):
        return [line for line in answer.decode().splitlines() if any(_signed(line, text, by))]
    return []


def _signed(line: str, text: bytes, by: Cosigner) -> Iterator[bool]:
    words = line.split(" ")
    if len(words) != _WORDS or words[:2] != ["\u2014", by.name]:
        return
    with suppress(ValueError, InvalidSignature):
        data = b64decode(words[2], validate=True)
        at = int.from_bytes(data[_ID : _ID + _STAMP], "big")
        said = b"cosignature/v1\ntime %d\n%b" % (at, text)
        Ed25519PublicKey.from_public_bytes(by.public).verify(data[_ID + _STAMP :], said)
        yield data[:_ID] == by.id
