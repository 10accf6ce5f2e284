"""Identify whose state at a server a call may touch. Pure."""

from hashlib import blake2b

from toolbus_common.lineage import Lineage

_BYTES = 16


def principal_of(lineage: Lineage) -> str:
    """Return the principal of a key: its user where it has one, else the key itself.

    A user's keys share their state. A key counts with its secret, so one that was deleted and made
    again under the same name is another principal; so is one that moved to another customer.
    """
    own = lineage.own
    if own.user:
        return digest_of("user", lineage.scope, own.user)
    return digest_of("key", lineage.scope, lineage.key, own.secret_hash)


def digest_of(*parts: str) -> str:
    """Return a name for these parts that reveals none of them."""
    told = "\0".join(f"{len(each)}:{each}" for each in parts)
    return blake2b(told.encode(), digest_size=_BYTES).hexdigest()
