"""Identity of the caller as a server receives it, if the server is configured for it (no I/O)."""

from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.access.token_cache import is_person
from toolbus_common.config.servers.oauth import ISSUED
from toolbus_common.contracts import CallRequested, Identified
from toolbus_policy.ledger.admitted_call import Payer

UNKNOWN = ("unknown",)


def caller_identity_of(
    snapshot: ConfigSnapshot, call: CallRequested, payer: Payer
) -> Identified | None:
    """Return the fields of the caller's identity that executor cannot derive.

    None if the server receives no identity.
    """
    server = snapshot.configuration.servers.get(call.server)
    if server is None:
        return None
    if server.identity is None and (server.oauth is None or server.oauth.grant != ISSUED):
        return None
    return Identified(team=payer.team, actors=_actors(snapshot, call.key_digest, payer.key))


def _actors(snapshot: ConfigSnapshot, key_digest: str, name: str) -> tuple[str, ...]:
    """Return the actors of a key; `UNKNOWN` if a person's token ended during the call.

    A suspended call can outlive the token. An empty result would claim that the person acts alone.
    """
    if is_person(name) and snapshot.bearers.known(hash_of(key_digest)) is None:
        return UNKNOWN
    return snapshot.actors(name, key_digest)
