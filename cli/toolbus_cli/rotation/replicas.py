"""What the running replicas know about a key, before a stage of a rotation depends on it."""

from collections.abc import Mapping

from toolbus_cli.errors import CommandError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.service.shared_keys import fingerprint

SECONDS = 2.0  # for every replica, also a busy one


async def require(bus: Bus, name: str, keys: Mapping[str, bytes], *, in_use: bool = False) -> None:
    """Raise `CommandError` unless every replica of each service accepts the service's key.

    With `in_use`, it must be the one that the replica uses.
    """
    wanted = {service: fingerprint(name, key) for service, key in keys.items()}
    statuses = await RequestReply(OPERATOR, bus).request_all(SECONDS, wanted=wanted.keys())
    answered = [each for each in statuses if each.service in wanted]
    if missing := sorted(wanted.keys() - {each.service for each in answered}):
        raise CommandError(
            f"No replica of {', '.join(missing)} replied, so it is not known whether they have the "
            "new key; nothing was changed. Start them and repeat the command."
        )
    lacking = [
        f"{each.service} ({each.instance})"
        for each in answered
        if wanted[each.service] not in each.keys.get(name, ())[: 1 if in_use else None]
    ]
    if lacking:
        raise CommandError(
            f"These replicas do not {'use' if in_use else 'accept'} the new key yet: "
            f"{', '.join(lacking)}; nothing was changed. Copy the key files to them, restart those "
            "that cannot see the change, and repeat the command."
        )


async def with_others(bus: Bus, name: str, key: bytes) -> list[str]:
    """Return a sentence about replicas that accept other keys too; empty if there are none."""
    statuses = await RequestReply(OPERATOR, bus).request_all(SECONDS)
    alone = (fingerprint(name, key),)
    found = [f"{each.service} ({each.instance})" for each in statuses
             if each.keys.get(name, alone) != alone]  # fmt: skip
    return [f"Remove the earlier files at {', '.join(found)} too."] if found else []
