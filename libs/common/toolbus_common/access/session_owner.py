"""Identify whose state at a server a call may touch. Pure."""

from hashlib import blake2b

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.principal import Principal

_BYTES = 16


def principal_id_of(principal: Principal, key_digest: str = "") -> str:
    """Return the principal of a key: its user where it has one, else the key itself.

    A user's keys share their state. A key counts with its secret, so one that was deleted and made
    again under the same name is another principal; so is one that moved to another customer.
    Callers without a credential count with their `key_digest`, which names their client session.
    """
    own = principal.own
    if principal.key == ANONYMOUS:
        return digest_of("anonymous", principal.customer, key_digest)
    if own.user:
        return digest_of("user", principal.customer, own.user)
    return digest_of("key", principal.customer, principal.key, own.secret_hash)


def holder_of(key_digest: str, principal: Principal) -> str:
    """Return who holds what is kept between calls: the key; of anonymous callers each session."""
    return key_digest if principal.key == ANONYMOUS else principal.key


def digest_of(*parts: str) -> str:
    """Return a name for these parts that reveals none of them."""
    told = "\0".join(f"{len(each)}:{each}" for each in parts)
    return blake2b(told.encode(), digest_size=_BYTES).hexdigest()
