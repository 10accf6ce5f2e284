"""Identify whose state at a server a call may touch. Pure."""

from hashlib import blake2b

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.principal import Principal

_BYTES = 16


def principal_id_of(lineage: Principal, proof: str = "") -> str:
    """Return the principal of a key: its user where it has one, else the key itself.

    A user's keys share their state. A key counts with its secret, so one that was deleted and made
    again under the same name is another principal; so is one that moved to another customer.
    Callers without a credential count with their `proof`, which names their client session.
    """
    own = lineage.own
    if lineage.key == ANONYMOUS:
        return digest_of("anonymous", lineage.scope, proof)
    if own.user:
        return digest_of("user", lineage.scope, own.user)
    return digest_of("key", lineage.scope, lineage.key, own.secret_hash)


def holder_of(proof: str, lineage: Principal) -> str:
    """Return who holds what is kept between calls: the key; of anonymous callers each session."""
    return proof if lineage.key == ANONYMOUS else lineage.key


def digest_of(*parts: str) -> str:
    """Return a name for these parts that reveals none of them."""
    told = "\0".join(f"{len(each)}:{each}" for each in parts)
    return blake2b(told.encode(), digest_size=_BYTES).hexdigest()
