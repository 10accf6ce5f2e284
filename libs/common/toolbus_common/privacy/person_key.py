"""Key of a person: it makes the pseudonym in events, and encrypts the content of events.

A pseudonym is `~` and 22 characters: the HMAC of the name with a salt that is derived from the key.
A token for content has the form `~pseudonym.sealed`. Its sealed part consists of a commitment, a
nonce, and a salt and the text, both encrypted with AES-256-GCM. A reader who knows salt and text
can verify them against the commitment without the key. After the key is shredded, neither the
pseudonym nor the commitment reveals anything.
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
CHECK = "master"  # entry that identifies the master key in use
_DOT = b"."


class Entry(msgspec.Struct):
    """The content of a person's bucket entry, before its encryption with the master key."""

    name: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted text, and the salt with which the text is verified against its commitment."""

    salt: bytes
    text: str


@dataclass(frozen=True)
class PersonKey:
    """The key of one person.

    `name` is the person's name in events, with the kind: `user:ann`, `operator:bo`. The cache of
    model responses uses keys of customers too: `customer:acme`.
    """

    name: str
    key: bytes

    @classmethod
    def new(cls, name: str) -> "PersonKey":
        """Create a random key for a person."""
        return cls(name, os.urandom(KEY_BYTES))

    @property
    def shown(self) -> str:
        """The name for display: without its kind if the person is a user."""
        return self.name.removeprefix(USER)

    @cached_property
    def pseudonym(self) -> str:
        """The pseudonym that replaces the name in events."""
        return "~" + encoded(_committed(self.salt, self.name)[:_PSEUDONYM])

    @cached_property
    def salt(self) -> bytes:
        """The salt that proves which name the pseudonym belongs to."""
        return _derived(self.key, b"name")

    def secret(self, purpose: bytes) -> bytes:
        """Return a key for another purpose than events. It is lost together with this key."""
        return _derived(self.key, purpose)

    def seal(self, text: str) -> str:
        """Encrypt a text, and return the token that replaces it in an event."""
        salt = os.urandom(_SALT)
        body = self._aead.seal(salt + text.encode(), self.pseudonym.encode())
        return f"{self.pseudonym}.{encoded(_committed(salt, text) + body)}"

    def open(self, token: str) -> Opened | None:
        """Return the decrypted text and salt of a token; None if the token is damaged.

        For a token that is only a pseudonym, return the name and the salt of the name.
        """
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


class Names:
    """The names of bucket entries. Their key stays the same when the master key is replaced."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def entry_of(self, name: str) -> str:
        """Return the name of a person's bucket entry: a keyed digest of the person's name."""
        return _committed(self.key, name)[:_PSEUDONYM].hex()


class Master:
    """The master key from the key file. It encrypts person keys.

    Its `mark` identifies it on the bus. Its `names` are those of the entries in a bucket whose
    first master key it is.
    """

    def __init__(self, key: bytes) -> None:
        self.names = Names(_derived(key, b"names"))
        self.mark = self.names.entry_of(CHECK).encode()
        self._aead = Aead(_derived(key, b"entries"))

    def check(self, names: Names) -> bytes:
        """Return the content of the entry `CHECK`: the mark, and the encrypted key of the names.

        The key is left out if it is derived from this master key.
        """
        if names.key == self.names.key:
            return self.mark
        return self.mark + _DOT + encoded(self._aead.seal(names.key, CHECK.encode())).encode()

    def names_in(self, check: bytes) -> Names | None:
        """Return the names of a bucket with this entry `CHECK`; None if it has another master."""
        mark, _, sealed = check.partition(_DOT)
        if mark != self.mark:
            return None
        try:
            key = self._aead.open(decoded(sealed.decode()), CHECK.encode()) if sealed else b""
        except ValueError:
            return None
        return Names(key) if key else self.names

    def seal(self, person: PersonKey, entry: str) -> bytes:
        """Return a person's key, encrypted for its bucket entry."""
        plain = msgspec.msgpack.encode(Entry(person.name, person.key))
        return self._aead.seal(plain, entry.encode())

    def open(self, entry: str, value: bytes) -> PersonKey | None:
        """Return a decrypted person key; None if it was encrypted with another master key."""
        try:
            found = msgspec.msgpack.decode(self._aead.open(value, entry.encode()), type=Entry)
        except (ValueError, msgspec.MsgspecError):
            return None
        return PersonKey(found.name, found.key)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, sha256)


def _committed(salt: bytes, text: str) -> bytes:
    return hmac.digest(salt, text.encode(), sha256)
