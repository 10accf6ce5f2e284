"""Erasure of a data subject: record it in each log, then destroy the subject's key."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AuditQuery, PersonErased, RowsReply
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.errors import ConflictError, UnknownEntryError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import readers_of
from toolbus_common.nats.topology import CONFIG, PEOPLE
from toolbus_common.privacy.crypto_shredding import shred
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import held
from toolbus_common.privacy.person_key import PersonKey

SECONDS = 20.0  # longer than audit's query timeout
CONFIRM_SECONDS, ROUND_SECONDS = 8.0, 0.4
CUSTOMER = "customer:"  # its key encrypts cached responses of models
KINDS = ("user:", "operator:", "admin:", "key:", CUSTOMER)


@dataclass(frozen=True, slots=True)
class Found:
    """A data subject, and the customers whose logs name the subject.

    `plain` is the number of events that contain the name unencrypted.
    """

    person: PersonKey
    revision: int
    customers: tuple[str, ...]
    plain: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """How many replicas discarded the key, and how many replied that they still have it."""

    replicas: int
    behind: int

    @property
    def complete(self) -> bool:
        """Whether every replica that replied discarded the key, and at least one did."""
        return self.replicas > 0 and not self.behind


async def found(
    repository: ConfigRepository,
    requests: RequestReply,
    people: PersonKeys,
    person_name: str,
    seconds: float = SECONDS,
) -> Found:
    """Find a data subject by name, and the logs that name the subject.

    `seconds` is the time for each of two queries of events.

    Raises:
        UnknownEntryError: there is no key for that name.
        ConflictError: one of the logs is under a legal hold.

    """
    name = person_name if person_name.startswith(KINDS) else f"user:{person_name}"
    known = await people.find(name)
    if known is None:
        raise UnknownEntryError(
            f"There is no encryption key for '{name}': no event names it, or it is already "
            f"erased. A data subject is written as {', '.join(KINDS)} followed by a name."
        )
    person, revision = known
    customers = {name.removeprefix(CUSTOMER)} if name.startswith(CUSTOMER) else set()
    if not customers:
        query = f"SELECT DISTINCT customer FROM events WHERE {_naming(person)}"  # noqa: S608
        rows = await _rows(requests, seconds, query)
        customers = {str(customer) for (customer,) in rows}
    logs = tuple(sorted(customers)) or (DEFAULT_CUSTOMER,)
    await _check_holds(repository, name, logs)
    ((plain,),) = await _rows(
        requests,
        seconds,
        f"SELECT count() FROM events WHERE user = {quoted(person.shown)}",  # noqa: S608
    )
    return Found(person, revision, logs, int(plain))


async def _check_holds(repository: ConfigRepository, name: str, customers: Iterable[str]) -> None:
    """Raise `ConflictError` if the log of one of the customers is under a legal hold."""
    holds = await held(await repository.bus.bucket(CONFIG))
    holding = sorted(holds.keys() & set(customers))
    if holding:
        raise ConflictError(
            f"Events of {', '.join(holding)} that name {name} are under a legal hold; "
            "'toolbus audit hold list' shows the reason. No event is erased until the "
            "hold is removed."
        )


def _naming(person: PersonKey) -> str:
    """Return an SQL condition for events that name a data subject.

    Call events are selected by indexed columns, and other events by their text.
    """
    named = f"user = '{person.pseudonym}'"
    if person.name.startswith("key:"):
        named = f"key = {quoted(person.name.removeprefix('key:'))}"
    others = "event NOT LIKE 'call.%' AND event NOT LIKE 'context.%'"
    return f"{named} OR ({others} AND position(detail, '{person.pseudonym}') > 0)"


async def erase(
    repository: ConfigRepository,
    requests: RequestReply,
    people: PersonKeys,
    found: Found,
    reason: str,
    seconds: float = CONFIRM_SECONDS,
) -> Confirmed:
    """Erase a data subject, and wait until all replicas discarded the subject's key.

    Raises:
        BusDownError: the erasure is incomplete and must be repeated.
        ConflictError: a legal hold was placed since the logs were found.

    """
    await _check_holds(repository, found.person.name, found.customers)
    for customer in found.customers:
        repository.record(
            PersonErased(
                id=f"{secrets.token_hex(10)}.erased",
                at=time(),
                customer=customer,
                pseudonym=found.person.pseudonym,
                by=repository.by,
                reason=reason,
            )
        )
    await repository.delivered()
    revision = await shred(repository.bus, people.entry_of(found.person.name), found.revision)
    return await _let_go(requests, revision, seconds)


async def _let_go(requests: RequestReply, revision: int, limit: float) -> Confirmed:
    """Wait until all replicas discarded the key, for about `limit` seconds.

    The first round waits for each kind of service. Later rounds are longer, because a busy replica
    may miss a round. At least one replica must confirm, and each replica that replied once must
    confirm.
    """
    give_up = monotonic() + limit
    seconds = ROUND_SECONDS
    confirmed: dict[str, int] = {}  # the revision of PEOPLE that each replica has
    while True:
        statuses = await requests.request_all(
            seconds, wanted=() if confirmed else readers_of(PEOPLE)
        )
        confirmed |= {
            each.instance: each.revisions[PEOPLE] for each in statuses if PEOPLE in each.revisions
        }
        behind = sum(known < revision for known in confirmed.values())
        left = give_up - monotonic()
        if (confirmed and not behind) or left <= 0:
            return Confirmed(len(confirmed) - behind, behind)
        seconds = min(2 * seconds, CONFIRM_SECONDS / 4, left)


async def _rows(requests: RequestReply, seconds: float, sql: str) -> tuple[tuple[Any, ...], ...]:
    return (await requests.request(AuditQuery(sql=sql, as_stored=True), RowsReply, seconds)).rows
