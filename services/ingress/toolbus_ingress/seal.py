"""Seals what a client carries for us: unreadable, unalterable, and of use to nobody else."""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from toolbus_common.errors import UpstreamFaultError

KEY_BYTES = 32
_NONCE_BYTES = 12
LONGEST = 64 * 1024  # characters; what is longer was not made here

C = TypeVar("C", bound="Claims")


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """What is sealed. Each kind's name is bound to its seal, so that one never opens as another."""


class SessionClaims(Claims, frozen=True):
    """A session of the eras with a handshake: `capabilities` is raw JSON, `expires` in seconds."""

    sid: str
    principal: str
    version: str
    capabilities: str
    expires: float


class StateClaims(Claims, frozen=True):
    """The server's `requestState` (None where it sent none), and the request it belongs to."""

    state: str | None
    principal: str
    request: str
    expires: float


class TaskClaims(Claims, frozen=True):
    """A server's task: which, where, and whose."""

    task: str
    server: str
    tool: str
    principal: str


class DoneClaims(Claims, frozen=True):
    """A task that was over when it began: its raw result, of which tool, whose, and since when."""

    result: bytes
    server: str
    tool: str
    principal: str
    at: float


class Seal:
    """AES-256-GCM (NIST SP 800-38D) with a random nonce for each seal."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, claims: Claims) -> str:
        """The claims as visible ASCII.

        Raises:
            UpstreamFaultError: they are longer than what is opened; only a server's can be.

        """
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, msgspec.msgpack.encode(claims), _kind(type(claims)))
        text = _text(nonce + sealed)
        if len(text) > LONGEST:
            raise UpstreamFaultError(
                f"The upstream's requestState or task id has {len(text)} characters when sealed, "
                f"and {LONGEST} can be carried (48 KB of its own); it must put less into it."
            )
        return text

    def open(self, text: Any, kind: type[C]) -> C | None:
        """The claims; None when this is no seal of ours, or one of another kind."""
        if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
            return None
        try:
            raw = urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            if _text(raw) != text:  # the decoder takes other spellings of the same bytes
                return None
            opened = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _kind(kind))
            return msgspec.msgpack.decode(opened, type=kind)
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            return None


def load_key(path: Path) -> bytes:
    """The key in a file, made on first use and readable by its owner only.

    Replicas on several machines must be given the same file, else each opens only its own seals.

    Raises:
        ValueError: the file holds no key.

    """
    if not path.exists():
        _make_key(path)  # a key that is given may lie where nothing can be written
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} must hold {KEY_BYTES} bytes; remove it to have one made.")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as fresh:
            fresh.write(os.urandom(KEY_BYTES))
        with suppress(FileExistsError):
            os.link(name, path)  # whole or not at all, even when two replicas begin at once
    finally:
        Path(name).unlink()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _kind(kind: type[Claims]) -> bytes:
    return kind.__name__.encode()
