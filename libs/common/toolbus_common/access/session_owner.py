"""Identification of the principal that owns the state at a server (no I/O)."""

from hashlib import blake2b

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.principal import Principal

_BYTES = 16


def principal_id_of(principal: Principal, key_digest: str = "") -> str:
    """Return the id of a principal: the id of its user, or of the key if the key has no user.

    All keys of a user share their state. The id of a key depends on its secret and its customer. A
    key is therefore another principal after it is deleted and created again under the same name, or
    moved to another customer. An anonymous caller is identified by `key_digest`, which contains the
    id of the client session.
    """
    own = principal.own
    if principal.key == ANONYMOUS:
        return digest_of("anonymous", principal.customer, key_digest)
    if own.user:
        return digest_of("user", principal.customer, own.user)
    return digest_of("key", principal.customer, principal.key, own.secret_hash)


def holder_of(key_digest: str, principal: Principal) -> str:
    """Return the owner of state between calls: the key, or the session of an anonymous caller."""
    return key_digest if principal.key == ANONYMOUS else principal.key


def digest_of(*parts: str) -> str:
    """Return a digest of these texts, from which the texts cannot be derived."""
    framed = "\0".join(f"{len(each)}:{each}" for each in parts)
    return blake2b(framed.encode(), digest_size=_BYTES).hexdigest()
