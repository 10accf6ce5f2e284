"""Requests to witnesses and their cosignatures (C2SP tlog-witness and tlog-cosignature)."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from toolbus_common.config.audit.retention import Cosigner

_ID, _STAMP = 4, 8  # bytes
_WORDS = 3


def add_checkpoint_body(old: int, proof: Iterable[bytes], note: str) -> bytes:
    """Return the body of add-checkpoint: the size that the witness has, proof and checkpoint."""
    hashes = "".join(f"{b64encode(each).decode()}\n" for each in proof)
    return f"old {old}\n{hashes}\n{note}".encode()


def conflicting_size(body: bytes) -> int | None:
    """Return the log size that a 409 response of a witness contains, else None."""
    text = body.strip()
    return int(text) if text.isdigit() and len(text) < 20 else None  # noqa: PLR2004


def cosignatures(response: bytes, note: str, witness: Cosigner) -> list[str]:
    """Return the lines of a response that are valid cosignatures of the note by this witness."""
    text = note.rpartition("\n\n")[0].encode() + b"\n"
    with suppress(UnicodeDecodeError):
        return [
            line for line in response.decode().splitlines() if any(_cosigned(line, text, witness))
        ]
    return []


def _cosigned(line: str, text: bytes, witness: Cosigner) -> Iterator[bool]:
    words = line.split(" ")
    if len(words) != _WORDS or words[:2] != ["\u2014", witness.name]:
        return
    with suppress(ValueError, InvalidSignature):
        data = b64decode(words[2], validate=True)
        at = int.from_bytes(data[_ID : _ID + _STAMP], "big")
        message = b"cosignature/v1\ntime %d\n%b" % (at, text)
        Ed25519PublicKey.from_public_bytes(witness.public).verify(data[_ID + _STAMP :], message)
        yield data[:_ID] == witness.id
