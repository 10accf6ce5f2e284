"""Records of the cache: the description of an entry, a purge, and the encrypted response (no I/O).

The content is encrypted with a key that is derived from the key of the customer and the key of the
person whose request was answered (or of the API key). After one of them is erased, the content
cannot be decrypted any more.
"""

import hmac
from hashlib import sha256

import msgspec
from msgspec import Struct

from toolbus_common.contracts import CallAdmitted
from toolbus_common.crypto.aead import Aead
from toolbus_common.privacy.person_key import PersonKey
from toolbus_executor.providers.usage import Response

ENTRY, PURGE = "e.", "p."  # prefixes of the names in the bucket
_PURPOSE = b"model cache"


class Entry(Struct, frozen=True, array_like=True):
    """The description of a cached response.

    `key` is the API key of the request, `owner` is the pseudonym of the person whose key encrypts
    the content, and `at` is the time of the response in seconds since the epoch. `size` is its
    encrypted size in bytes. `seen` is the newest revision of the bucket that the executor knew when
    the request began, so that a purge also removes responses that arrive after it. `context` is the
    digest of the request without the text that may differ, and `sealed` has the encrypted
    `Comparison`; both are empty if only equal requests share the response.
    """

    customer: str
    provider: str
    model: str
    key: str
    owner: str
    at: float
    size: int
    seen: int
    context: bytes = b""
    sealed: bytes = b""


class Comparison(Struct, frozen=True, array_like=True):
    """The embedding of a text as 32-bit floats."""

    vector: bytes


class Purge(Struct, frozen=True, array_like=True):
    """A selection of entries: those that match all fields. An empty field matches every entry."""

    customer: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    entry: str = ""

    def selects(self, name: str, entry: Entry) -> bool:
        """Return whether an entry is selected."""
        return (
            self.customer in ("", entry.customer)
            and self.provider in ("", entry.provider)
            and self.model in ("", entry.model)
            and self.key in ("", entry.key)
            and self.entry in ("", entry_id(name))
        )

    @property
    def name(self) -> str:
        """The name of the purge in the bucket. An equal purge replaces it."""
        return f"{PURGE}{sha256(encode(self)).hexdigest()[:32]}"


encode = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode
decode_purge = msgspec.msgpack.Decoder(Purge).decode
decode_response = msgspec.msgpack.Decoder(Response).decode
decode_comparison = msgspec.msgpack.Decoder(Comparison).decode


def customer_name(customer: str) -> str:
    """Return the name of the key that is erased with a customer's data."""
    return f"customer:{customer}"


def owner_name(call: CallAdmitted) -> str:
    """Return the name of the key of the person, or else of the API key, that made a request."""
    return f"user:{call.user}" if call.user else f"key:{call.key}"


def entry_name(customer: str, person: PersonKey, digest: bytes) -> str:
    """Return the name of an entry. It can be computed only with the customer's key."""
    return f"{ENTRY}{customer}.{keyed(person, digest).hex()}"


def keyed(person: PersonKey, digest: bytes) -> bytes:
    """Return a digest that reveals nothing about a request without the customer's key."""
    return hmac.digest(person.secret(_PURPOSE), digest, sha256)[:16]


def entry_id(name: str) -> str:
    """Return the id of an entry, as clients and operators see it."""
    return name.rpartition(".")[2]


def cipher(customer: PersonKey, owner: PersonKey) -> Aead:
    """Return the cipher for the content of entries."""
    return Aead(hmac.digest(customer.secret(_PURPOSE), owner.secret(_PURPOSE), sha256))
