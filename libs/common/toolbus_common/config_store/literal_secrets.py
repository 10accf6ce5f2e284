"""Encryption of the configuration's literal secrets for the one service that uses each secret.

Operators and policy write the configuration, and every service reads it, but only one service needs
each secret. A literal value is therefore encrypted with the public key of that service (X25519,
HKDF-SHA-256, AES-256-GCM). A ciphertext is bound to its location and to the destination of its
entry, so it is invalid in any other location. It is stored with a keyed digest, by which writers
detect that a value has changed.
"""

import hmac
import json
import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: TID251 - no stored nonce

from toolbus_common.config import Configuration
from toolbus_common.config.audit.retention import Evidence
from toolbus_common.config.base import SEALED_VALUE
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.config_store.redacted_view import DESTINATIONS, is_reference, restored
from toolbus_common.crypto.aead import derived_key
from toolbus_common.crypto.key_file import accepted_keys, create_key, load_key

log = logging.getLogger(__name__)

WRITERS = "writers.json"  # the services' public keys, and the secret key for digests
DIGESTS = "digests"
_MORE_DIGESTS = "digests.accepted"  # one text of all: earlier versions decode every value
USED_BY = {
    "servers": "executor", "exports": "audit", "sinks": "audit", "webhooks": "audit",
    "issuers": "oauth", "providers": "executor", "guards": "executor",
    "plugins": "executor", "evidence": "audit",
}  # fmt: skip
READERS = tuple(sorted(set(USED_BY.values())))
_PREFIX = SEALED_VALUE
_KEY_BYTES = 32
_NONCE = bytes(12)  # constant, because each ciphertext has a separate key
_UNNAMED = re.compile(r"[{}#\s]")


@dataclass(frozen=True, slots=True)
class SecretLocation:
    """The location of one secret in the configuration, with the destination of its entry."""

    section: str
    name: str
    field: str
    key: str
    destination: str

    def __str__(self) -> str:
        """Return the location in the form for error messages."""
        parts = (self.section, self.name, self.field, self.key)
        return _UNNAMED.sub("_", ".".join(part for part in parts if part))

    @property
    def bound(self) -> bytes:
        """The associated data of the ciphertext, which binds it to this location."""
        parts = [self.section, self.name, self.field, self.key, self.destination]
        return json.dumps(parts).encode()


class Writer:
    """Encrypts the literal secrets of a configuration. An unchanged value keeps its ciphertext."""

    def __init__(self, accepted: Sequence[bytes], readers: Mapping[str, bytes]) -> None:
        self.accepted = accepted  # keys of digests: the one in use, and others of a rotation
        self._digests = accepted[0]
        self._readers = readers

    @classmethod
    def at(cls, directory: Path) -> "Writer":
        """Return a writer with the keys of a directory. Missing keys are created.

        Raises `ValueError` if the file of keys is unreadable.
        """
        path = directory / WRITERS
        create_key(path, lambda: _writers(directory))
        try:
            keys = {
                name: urlsafe_b64decode(key) for name, key in json.loads(path.read_bytes()).items()
            }
            accepted = _split(keys[DIGESTS] + keys.get(_MORE_DIGESTS, b""))
            return cls(accepted, {name: keys[name] for name in READERS})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"'{path}' does not contain the keys that encrypt secrets; restore it from a "
                "backup."
            ) from error

    def complete(self, new: Configuration, old: Configuration) -> Configuration:
        """Return the new configuration with stored secrets restored and literal ones encrypted.

        Raises `InvalidConfigurationError` if a stored credential would be sent to another
        destination.
        """
        return self.sealed(restored(new, old), old)

    def sealed(self, new: Configuration, old: Configuration) -> Configuration:
        """Return the configuration with all literal secrets encrypted."""
        before = dict(_values(old))

        def encrypted(location: SecretLocation, value: str) -> str:
            if not value or is_reference(value):
                return value
            return self._encrypted(location, value, before.get(location, ""))

        return _changed(new, encrypted, USED_BY)

    def _encrypted(self, location: SecretLocation, value: str, before: str) -> str:
        reader = self._readers[USED_BY[location.section]]
        digest = hmac.new(self._digests, location.bound + value.encode(), sha256).hexdigest()[:32]
        head = f"{_PREFIX}{_id_of(reader)}:{digest}:"
        if value == before and before.startswith(_PREFIX):
            return before
        if before.startswith(head):
            return before
        return head + urlsafe_b64encode(_seal(reader, value.encode(), location.bound)).decode()


def keys_at(service: str, directory: Path) -> list[bytes]:
    """Return the key in `<service>.key`, created if missing, then the service's earlier keys."""
    return accepted_keys(directory / f"{service}.key")


class Reader:
    """Decrypts the secrets of one service in each configuration that the service receives."""

    def __init__(self, service: str, keys: Iterable[bytes]) -> None:
        self._sections = [section for section, user in USED_BY.items() if user == service]
        self._keys = {_id_of(_public(key)): key for key in keys}

    @classmethod
    def at(cls, service: str, directory: Path) -> "Reader":
        """Return a reader with the keys in `<service>.key` and in earlier `<service>.*.key`.

        A missing `<service>.key` is created.
        """
        return cls(service, keys_at(service, directory))

    def opened(self, configuration: Configuration) -> Configuration:
        """Return the configuration with this service's secrets decrypted.

        A secret that cannot be decrypted is replaced with a reference that cannot be resolved, so
        the entry is not used.
        """
        return _changed(configuration, self._opened, self._sections)

    def _opened(self, location: SecretLocation, value: str) -> str:
        if not value.startswith(_PREFIX):
            return value
        try:
            known, _, sealed = value.removeprefix(_PREFIX).split(":")
            return _open(self._keys[known], urlsafe_b64decode(sealed), location.bound).decode()
        except (ValueError, KeyError, InvalidTag):
            log.error("config.secret_not_decrypted", extra={"path": str(location)})  # noqa: TRY400
            return _lost(location)


def create_encryption_keys(directory: Path) -> None:
    """Create missing keys: a key pair for each reading service, and the file for writers."""
    for service in READERS:
        load_key(directory / f"{service}.key")
    Writer.at(directory)


def for_writers(digests: Sequence[bytes], readers: Mapping[str, bytes]) -> dict[str, str]:
    """Return what the file for writers holds: keys of digests, and the services' public keys."""
    keys = {DIGESTS: digests[0]} | {name: _public(key) for name, key in readers.items()}
    if more := b"".join(digests[1:]):
        keys[_MORE_DIGESTS] = more
    return {name: urlsafe_b64encode(key).decode() for name, key in keys.items()}


def decrypted_by_all(directory: Path, configuration: Configuration) -> Configuration:
    """Return the configuration with the secrets of all services decrypted.

    Raises `ValueError` if a secret cannot be decrypted with the keys in this directory.
    """
    opened = configuration
    for service in READERS:
        opened = Reader.at(service, directory).opened(opened)
    now = dict(_values(opened))
    lost = [
        str(location)
        for location, value in _values(configuration)
        if value.startswith(_PREFIX) and now[location] == _lost(location)
    ]
    if lost:
        raise ValueError(
            f"No key in '{directory}' decrypts {', '.join(lost)}; apply these secrets again"
        )
    return opened


def sealed_with_others(directory: Path, configuration: Configuration) -> list[str]:
    """Return the locations of secrets that are not encrypted with a key in use."""
    used = {service: _id_of(_public(load_key(directory / f"{service}.key"))) for service in READERS}
    return [
        str(location)
        for location, value in _values(configuration)
        if value.startswith(_PREFIX)
        and not value.startswith(f"{_PREFIX}{used[USED_BY[location.section]]}:")
    ]


def _split(digests: bytes) -> list[bytes]:
    """Return the keys that a text consists of. Raises `ValueError` if one is missing or cut."""
    if not digests or len(digests) % _KEY_BYTES:
        raise ValueError(DIGESTS)
    return [digests[at : at + _KEY_BYTES] for at in range(0, len(digests), _KEY_BYTES)]


def _writers(directory: Path) -> bytes:
    readers = {name: load_key(directory / f"{name}.key") for name in READERS}
    return json.dumps(for_writers(keys_at(DIGESTS, directory), readers)).encode()


def _lost(location: SecretLocation) -> str:
    return f"${{sealed:{location}}}"


def _values(configuration: Configuration) -> Iterator[tuple[SecretLocation, str]]:
    found: list[tuple[SecretLocation, str]] = []

    def note(location: SecretLocation, value: str) -> str:
        found.append((location, value))
        return value

    _changed(configuration, note, USED_BY)
    return iter(found)


def _changed(
    configuration: Configuration,
    change: Callable[[SecretLocation, str], str],
    sections: Iterable[str],
) -> Configuration:
    """Return the configuration with `change` applied to every value that can be a secret."""
    made: dict[str, Any] = {}
    for section in sections:
        declared = getattr(configuration, section)
        if isinstance(declared, Evidence):  # its one entry is a field
            if (target := declared.checkpoints) is not None:
                kept = _entry_changed(section, "checkpoints", target, change)
                made[section] = declared.model_copy(update={"checkpoints": kept})
            continue
        made[section] = {
            name: _entry_changed(section, name, entry, change) for name, entry in declared.items()
        }
    return configuration.model_copy(update=made)


def _entry_changed(
    section: str, name: str, entry: Any, change: Callable[[SecretLocation, str], str]
) -> Any:
    update: dict[str, Any] = {}
    destination = ""
    for field in (*CREDENTIALS, "secret"):
        values = getattr(entry, field, None)
        if not values:
            continue
        destination = destination or _destination_of(section, entry)
        if isinstance(values, str):
            location = SecretLocation(section, name, field, "", destination)
            update[field] = change(location, values)
        else:
            update[field] = {
                key: change(SecretLocation(section, name, field, key, destination), value)
                for key, value in values.items()
            }
    return entry.model_copy(update=update) if update else entry


def _destination_of(section: str, entry: Any) -> str:
    fields = entry.model_dump(
        mode="json", exclude_defaults=True, include=set(DESTINATIONS[section])
    )
    return json.dumps(fields, sort_keys=True)


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
    return derived_key(shared, b"toolbus sealed literal v1" + publics)
