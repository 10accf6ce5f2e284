"""What a server is told of who calls, where its declaration says that it is told. Pure."""

from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.access.token_cache import is_person
from toolbus_common.contracts import CallRequested, Identified
from toolbus_policy.ledger.admitted_call import Payer

UNKNOWN = ("unknown",)


def identified(snapshot: ConfigSnapshot, call: CallRequested, payer: Payer) -> Identified | None:
    """What executor cannot know of itself; None where nobody is told."""
    server = snapshot.declaration.servers.get(call.server)
    if server is None or server.identity is None:
        return None
    return Identified(team=payer.team, actors=_actors(snapshot, call.key_digest, payer.key))


def _actors(snapshot: ConfigSnapshot, key_digest: str, name: str) -> tuple[str, ...]:
    """Who acts for them. A token that ended while a call waited for a person tells it no more.

    Then somebody does whom nobody knows: not to say so would say that the person acts alone.
    """
    if is_person(name) and snapshot.bearers.known(hash_of(key_digest)) is None:
        return UNKNOWN
    return snapshot.actors(name, key_digest)
