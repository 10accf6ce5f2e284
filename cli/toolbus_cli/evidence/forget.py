"""Forgets a person: says so in every log that names them, then shreds the key, everywhere."""

import secrets
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AuditQuery, PersonErased, RowsReply
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR, readers_of
from toolbus_common.nats.topology import CONFIG, PEOPLE
from toolbus_common.privacy.crypto_shredding import shred
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import held
from toolbus_common.privacy.person_key import PersonKey

SECONDS = 20.0  # longer than audit lets a question run
HEARD_SECONDS, ROUND_SECONDS = 10.0, 0.4
KINDS = ("user:", "operator:", "admin:", "key:")


@dataclass(frozen=True, slots=True)
class Found:
    """A person events name: in whose logs, and how often in plain (before names were sealed)."""

    person: PersonKey
    revision: int
    customers: tuple[str, ...]
    plain: int


async def found(desk: ConfigRepository, people: PersonKeys, said: str) -> Found:
    """Whom this means, and where they are named.

    Raises:
        CommandError: nobody has that name, or what names them is held.

    """
    name = said if said.startswith(KINDS) else f"user:{said}"
    known = await people.find(name)
    if known is None:
        raise CommandError(
            f"No key is kept of '{name}': no event names them, or they are forgotten already. "
            f"A person is a {', '.join(KINDS)}… and a name."
        )
    person, revision = known
    lane = RequestReply(OPERATOR, desk.bus)
    rows = await _asked(lane, f"SELECT DISTINCT customer FROM events WHERE {_naming(person)}")  # noqa: S608
    customers = {str(customer) for (customer,) in rows}
    holding = sorted(customers.intersection(await held(await desk.bus.bucket(CONFIG))))
    if holding:
        raise CommandError(
            f"Events of {', '.join(holding)} that name {name} are under a legal hold; "
            "'toolbus audit hold list' says why, and nothing of them is erased until it is lifted."
        )
    ((plain,),) = await _asked(
        lane,
        f"SELECT count() FROM events WHERE user = {quoted(person.shown)}",  # noqa: S608
    )
    return Found(person, revision, tuple(sorted(customers)) or (DEFAULT_CUSTOMER,), int(plain))


def _naming(person: PersonKey) -> str:
    """Events that name somebody, as a condition: calls by their columns, for they are most."""
    named = f"user = '{person.pseudonym}'"
    if person.name.startswith("key:"):
        named = f"key = {quoted(person.name.removeprefix('key:'))}"
    others = "event NOT LIKE 'call.%' AND event NOT LIKE 'context.%'"
    return f"{named} OR ({others} AND position(detail, '{person.pseudonym}') > 0)"


async def forget(desk: ConfigRepository, people: PersonKeys, found: Found, reason: str) -> int:
    """Forget them; how many services have let go of the key.

    Raises:
        BusDownError: it was not done to its end; do it again.

    """
    for customer in found.customers:
        desk.record(
            PersonErased(
                id=f"{secrets.token_hex(10)}.erased",
                at=time(),
                customer=customer,
                pseudonym=found.person.pseudonym,
                by=desk.by,
                reason=reason,
            )
        )
    await desk.delivered()
    revision = await shred(desk.bus, people.entry_of(found.person.name), found.revision)
    return await _let_go(desk, revision)


async def _let_go(desk: ConfigRepository, revision: int) -> int:
    """How many services have heard: all that are there. Raises `CommandError`.

    A busy service misses a round, so at first each kind is waited for, and later rounds are longer:
    who has answered once must have heard, and somebody must, for audit was there a moment ago.
    """
    lane, give_up = RequestReply(OPERATOR, desk.bus), monotonic() + HEARD_SECONDS
    heard: dict[str, int] = {}  # how much each replica of a service knows of people
    seconds = ROUND_SECONDS
    while True:
        told = await lane.ask_all(seconds, wanted=() if heard else readers_of(PEOPLE))
        heard |= {
            each.instance: each.revisions[PEOPLE] for each in told if PEOPLE in each.revisions
        }
        behind = sum(known < revision for known in heard.values())
        if heard and not behind:
            return len(heard)
        if monotonic() > give_up:
            raise CommandError(
                f"The key is shredded, but {behind or 'the'} services have not confirmed that "
                "they let go of it; restart those that 'toolbus status' shows as unwell."
            )
        seconds = min(2 * seconds, HEARD_SECONDS / 4)


async def _asked(lane: RequestReply, sql: str) -> tuple[tuple[Any, ...], ...]:
    return (await lane.ask(AuditQuery(sql=sql, as_stored=True), RowsReply, SECONDS)).rows
