"""Seal the literal secrets of a declaration for the one service that uses them.

Operators and policy write declarations, every service reads them, and one service needs each
secret: so a literal value is sealed to that service's public key (X25519, HKDF-SHA-256,
AES-256-GCM), and only that service opens it. A seal is bound to its place and to where the entry
leads, so that it opens nowhere else. A keyed digest beside it tells writers whether a value
changed.
"""

import hmac
import json
import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from toolbus_common.config import Configuration
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.config_store.redacted_view import LEADS, is_reference, restored
from toolbus_common.crypto.key_file import create_key, load_key, read_key

log = logging.getLogger(__name__)

WRITERS = "writers.json"  # what seals: public keys, and the key of digests
DIGESTS = "digests"
USED_BY = {
    "servers": "executor", "exports": "audit", "sinks": "audit", "webhooks": "audit",
    "issuers": "oauth",
}  # fmt: skip
READERS = tuple(sorted(set(USED_BY.values())))
_PREFIX = "sealed:v1:"
_KEY_BYTES = 32
_NONCE = bytes(12)  # every seal has a key of its own
_UNNAMED = re.compile(r"[{}#\s]")


@dataclass(frozen=True, slots=True)
class Place:
    """One value of a declaration, and where the entry it belongs to leads."""

    section: str
    name: str
    field: str
    key: str
    leads: str

    def __str__(self) -> str:
        """As it is named in errors."""
        parts = (self.section, self.name, self.field, self.key)
        return _UNNAMED.sub("_", ".".join(part for part in parts if part))

    @property
    def bound(self) -> bytes:
        """What a seal of it is bound to."""
        parts = [self.section, self.name, self.field, self.key, self.leads]
        return json.dumps(parts).encode()


class Writer:
    """Seals the literals of a declaration; what has not changed keeps the seal it has."""

    def __init__(self, digests: bytes, readers: Mapping[str, bytes]) -> None:
        self._digests = digests
        self._readers = readers

    @classmethod
    def at(cls, directory: Path) -> "Writer":
        """Take the keys from a directory; they are made on first use. Raises `ValueError`."""
        path = directory / WRITERS
        create_key(path, lambda: _writers(directory))
        try:
            told = {
                name: urlsafe_b64decode(key) for name, key in json.loads(path.read_bytes()).items()
            }
            return cls(told.pop(DIGESTS), {name: told[name] for name in READERS})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} does not hold the keys that seal secrets.") from error

    def complete(self, new: Configuration, old: Configuration) -> Configuration:
        """Return the new declaration as it is stored: with what it keeps of the old, and sealed.

        Raises `FaultyError`: a credential is kept only for whoever it was given to.
        """
        return self.sealed(restored(new, old), old)

    def sealed(self, new: Configuration, old: Configuration) -> Configuration:
        """Return the declaration with every literal secret sealed."""
        before = dict(_values(old))

        def settled(place: Place, value: str) -> str:
            if not value or is_reference(value):
                return value
            return self._settled(place, value, before.get(place, ""))

        return _changed(new, settled, USED_BY)

    def _settled(self, place: Place, value: str, before: str) -> str:
        reader = self._readers[USED_BY[place.section]]
        digest = hmac.new(self._digests, place.bound + value.encode(), sha256).hexdigest()[:32]
        head = f"{_PREFIX}{_id_of(reader)}:{digest}:"
        if value == before and before.startswith(_PREFIX):
            return before
        if before.startswith(head):
            return before
        return head + urlsafe_b64encode(_seal(reader, value.encode(), place.bound)).decode()


class Reader:
    """Opens what was sealed for one service, in the declarations it hears of."""

    def __init__(self, service: str, keys: Iterable[bytes]) -> None:
        self._sections = [section for section, user in USED_BY.items() if user == service]
        self._keys = {_id_of(_public(key)): key for key in keys}

    @classmethod
    def at(cls, service: str, directory: Path) -> "Reader":
        """Take the service's keys: `<service>.key`, made on first use, and `<service>.*.key`."""
        earlier = sorted(directory.glob(f"{service}.*.key"))
        return cls(service, [load_key(directory / f"{service}.key"), *map(read_key, earlier)])

    def opened(self, declaration: Configuration) -> Configuration:
        """Return the declaration with what is this service's opened.

        What does not open becomes a reference that cannot be read, so that the entry is not used.
        """
        return _changed(declaration, self._opened, self._sections)

    def _opened(self, place: Place, value: str) -> str:
        if not value.startswith(_PREFIX):
            return value
        try:
            known, _, sealed = value.removeprefix(_PREFIX).split(":")
            return _open(self._keys[known], urlsafe_b64decode(sealed), place.bound).decode()
        except (ValueError, KeyError, InvalidTag):
            log.error("config.secret_not_opened", extra={"place": str(place)})  # noqa: TRY400
            return f"${{sealed:{place}}}"


def create_sealing_keys(directory: Path) -> None:
    """Make every key that is missing: of the services that open, and of those that seal."""
    for service in READERS:
        load_key(directory / f"{service}.key")
    Writer.at(directory)


def _writers(directory: Path) -> bytes:
    publics = {service: _public(load_key(directory / f"{service}.key")) for service in READERS}
    keys = {DIGESTS: load_key(directory / "digests.key"), **publics}
    return json.dumps(
        {name: urlsafe_b64encode(key).decode() for name, key in keys.items()}
    ).encode()


def _values(declaration: Configuration) -> Iterator[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []

    def note(place: Place, value: str) -> str:
        found.append((place, value))
        return value

    _changed(declaration, note, USED_BY)
    return iter(found)


def _changed(
    declaration: Configuration, change: Callable[[Place, str], str], sections: Iterable[str]
) -> Configuration:
    """Return the declaration with every value that may be a secret replaced."""
    made = {
        section: {
            name: _entry_changed(section, name, entry, change)
            for name, entry in getattr(declaration, section).items()
        }
        for section in sections
    }
    return declaration.model_copy(update=made)


def _entry_changed(section: str, name: str, entry: Any, change: Callable[[Place, str], str]) -> Any:
    update: dict[str, Any] = {}
    leads = ""
    for field in (*CREDENTIALS, "secret"):
        values = getattr(entry, field, None)
        if not values:
            continue
        leads = leads or _leads(section, entry)
        if isinstance(values, str):
            update[field] = change(Place(section, name, field, "", leads), values)
        else:
            update[field] = {
                key: change(Place(section, name, field, key, leads), value)
                for key, value in values.items()
            }
    return entry.model_copy(update=update) if update else entry


def _leads(section: str, entry: Any) -> str:
    told = entry.model_dump(mode="json", exclude_defaults=True, include=set(LEADS[section]))
    return json.dumps(told, sort_keys=True)


def _public(key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def _id_of(public: bytes) -> str:
    return sha256(public).hexdigest()[:16]


def _seal(reader: bytes, value: bytes, bound: bytes) -> bytes:
    once = X25519PrivateKey.generate()
    shared = once.exchange(X25519PublicKey.from_public_bytes(reader))
    public = once.public_key().public_bytes_raw()
    return public + AESGCM(_derived(shared, public + reader)).encrypt(_NONCE, value, bound)


def _open(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    public, text = sealed[:_KEY_BYTES], sealed[_KEY_BYTES:]
    private = X25519PrivateKey.from_private_bytes(key)
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return AESGCM(_derived(shared, public + _public(key))).decrypt(_NONCE, text, bound)


def _derived(shared: bytes, publics: bytes) -> bytes:
    info = b"toolbus sealed literal v1" + publics
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(shared)
