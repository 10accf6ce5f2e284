"""One person's key: the pseudonym in events, and encryption of their content. Pure.

A pseudonym is `~` and 22 characters, the HMAC of the name under a salt derived from the key. Sealed
content is `~pseudonym.sealed`: a commitment to it, a nonce, and AES-256-GCM of a salt and the text.
A reader who gets salt and text can check them against the commitment without the key; once the key
is shredded, neither pseudonym nor commitment reveals anything.
"""

import hmac
import os
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import msgspec

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.aead import Aead
from toolbus_common.crypto.key_file import KEY_BYTES

USER = "user:"
TOKEN = re.compile(r"~[A-Za-z0-9_-]{22}(?:\.[A-Za-z0-9_-]+)?")
_PSEUDONYM, _COMMITMENT, _SALT = 16, 32, 16  # bytes


class Entry(msgspec.Struct):
    """A person's entry in the bucket, before encryption under the master key."""

    name: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted text, and the salt that proves it."""

    salt: bytes
    text: str


@dataclass(frozen=True)
class PersonKey:
    """The key of one person.

    `name` is the name in events, with its kind: `user:ann`, `operator:bo`.
    """

    name: str
    key: bytes

    @classmethod
    def new(cls, name: str) -> "PersonKey":
        """Create the key of a person not named in events before."""
        return cls(name, os.urandom(KEY_BYTES))

    @property
    def shown(self) -> str:
        """The name as displayed: without the kind for users."""
        return self.name.removeprefix(USER)

    @cached_property
    def pseudonym(self) -> str:
        """The pseudonym that replaces the name in events."""
        return "~" + encoded(_committed(self.salt, self.name)[:_PSEUDONYM])

    @cached_property
    def salt(self) -> bytes:
        """The salt that proves that the pseudonym belongs to the name."""
        return _derived(self.key, b"name")

    def seal(self, text: str) -> str:
        """Return the token that replaces this text in an event."""
        salt = os.urandom(_SALT)
        body = self._aead.seal(salt + text.encode(), self.pseudonym.encode())
        return f"{self.pseudonym}.{encoded(_committed(salt, text) + body)}"

    def open(self, token: str) -> Opened | None:
        """Return the text and salt that `seal` encrypted; None if the token is damaged."""
        pseudonym, _, sealed = token.partition(".")
        if not sealed:
            return Opened(self.salt, self.name)
        try:
            body = self._aead.open(decoded(sealed)[_COMMITMENT:], pseudonym.encode())
            return Opened(body[:_SALT], body[_SALT:].decode())
        except ValueError:
            return None

    @cached_property
    def _aead(self) -> Aead:
        return Aead(_derived(self.key, b"content"))


class Master:
    """The key from the key file, which encrypts person keys."""

    def __init__(self, key: bytes) -> None:
        self._names = _derived(key, b"names")
        self._aead = Aead(_derived(key, b"entries"))

    def entry_of(self, name: str) -> str:
        """Return the bucket entry of a person, a keyed digest of the name."""
        return _committed(self._names, name)[:_PSEUDONYM].hex()

    def seal(self, person: PersonKey) -> bytes:
        """Encrypt a person's key for the bucket."""
        plain = msgspec.msgpack.encode(Entry(person.name, person.key))
        return self._aead.seal(plain, self.entry_of(person.name).encode())

    def open(self, entry: str, value: bytes) -> PersonKey | None:
        """Decrypt an entry; None if it was encrypted under another master key."""
        try:
            found = msgspec.msgpack.decode(self._aead.open(value, entry.encode()), type=Entry)
        except (ValueError, msgspec.MsgspecError):
            return None
        return PersonKey(found.name, found.key)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, sha256)


def _committed(salt: bytes, text: str) -> bytes:
    return hmac.digest(salt, text.encode(), sha256)
