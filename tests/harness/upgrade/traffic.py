"""Load by keys and by access tokens through a balancer, and the results of its calls."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx2

from harness.clients.steady_load import Load
from harness.gateway.rolling_restart import Balancer
from harness.services.ledger_totals import spent_and_reserved
from harness.upgrade.installation import CODER, KEY, PRICE, PUBLIC_URL, Installation
from harness.waits import until_blocking

KINDS = ("count", "wait", "count", "program")
TOKEN_PAUSE = 0.5
ENOUGH = 30  # calls after each replacement
_CALLS = """
SELECT count() AS calls, sum(charge) AS charged, countIf(allowed != 1 OR completed != 1) AS broken
FROM (SELECT call_id, countIf(event = 'call.allowed') AS allowed,
        countIf(event = 'call.completed') AS completed,
        sumIf(charge, event = 'call.completed') AS charge
    FROM events WHERE server = 'echo' AND startsWith(event, 'call.') GROUP BY call_id)
"""
_TWICE = "SELECT count() - uniqExact(id) AS twice FROM events"


@dataclass
class Traffic:
    """The loads, and the access tokens that were refused."""

    loads: list[Load]
    tokens: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> int:
        """The number of calls with the expected response."""
        return sum(len(each.succeeded) for each in self.loads)

    def go_on(self) -> None:
        """Wait until some more calls have succeeded."""
        enough = self.succeeded + ENOUGH
        until_blocking(lambda: self.succeeded > enough, "calls go on")

    def faults(self) -> list[str]:
        """Describe each kind of failed call."""
        found = list(self.refused)
        for load in self.loads:
            found += [
                f"{count} {code}, first: {load.messages.get(code)}"
                for code, count in load.failed.items()
            ]
            found += [*load.causes, *load.wrong]
        return found

    def expected(self) -> Counter[str]:
        """Return the ids that the upstream must have executed, each once."""
        return sum(map(_executed, self.loads), Counter())

    def budgeted(self) -> int:
        """Return the number of executed calls of keys, which have budgets."""
        return _executed(self.loads[0]).total()


@contextmanager
def traffic(place: Installation, client: tuple[str, str], rate: float) -> Iterator[Traffic]:
    """Make calls until the context ends and the last one has a response."""
    ended = Event()
    with Balancer(place.edges).running() as balancer, httpx2.Client(timeout=30) as http:
        by_key = Load(balancer.endpoint, KEY, CODER, rate, KINDS)
        by_token = Load(balancer.endpoint, "", "", rate / 5, ("count",))
        made = Traffic([by_key, by_token])
        _renew(made, balancer, http, client)

        def renew() -> None:
            while not ended.wait(TOKEN_PAUSE):
                _renew(made, balancer, http, client)

        threads = [Thread(target=lambda load=load: asyncio.run(load.work())) for load in made.loads]
        threads.append(Thread(target=renew))
        for each in threads:
            each.start()
        try:
            yield made
        finally:
            for load in made.loads:
                load.stop()
            ended.set()
            for each in threads:
                each.join()


def _renew(made: Traffic, balancer: Balancer, http: httpx2.Client, client: tuple[str, str]) -> None:
    """Request an access token for the next calls."""
    url = balancer.endpoint().removesuffix("/mcp") + "/oauth/token"
    form = {"grant_type": "client_credentials", "resource": f"{PUBLIC_URL}/mcp"}
    try:
        answer = http.post(url, data=form, auth=client)
    except httpx2.HTTPError as error:
        made.refused.append(f"/oauth/token: {error!r}")
        return
    if answer.status_code != httpx2.codes.OK:
        made.refused.append(f"/oauth/token: {answer.text}")
        return
    made.tokens += 1
    made.loads[1].key = answer.json()["access_token"]


def check(place: Installation, all_traffic: list[Traffic]) -> int:
    """Compare executed, recorded and charged calls, and return their number."""
    executed = Counter(str(each["id"]) for each in place.upstream.arrived())
    expected: Counter[str] = sum((each.expected() for each in all_traffic), Counter())
    assert executed == expected
    count = executed.total()
    whole = {"calls": count, "charged": count * PRICE, "broken": 0}
    found = place.eventual_rows(_CALLS, lambda rows: _numbers(rows[0]) == whole)
    assert _numbers(found[0]) == whole
    assert int(place.rows(_TWICE)[0]["twice"]) == 0
    spent = sum(each.budgeted() for each in all_traffic) * PRICE
    until_blocking(
        lambda: spent_and_reserved(place.valkey.url) == (spent, 0),
        f"the ledger has {spent}, not {spent_and_reserved(place.valkey.url)}",
    )
    return count


def _executed(load: Load) -> Counter[str]:
    """Return the ids in the responses of a load; a program has made two calls."""
    answers = (ended.call.answer for ended in load.succeeded)
    return Counter(each for answer in answers for each in answer.split())


def _numbers(row: dict[str, object]) -> dict[str, int]:
    return {name: int(str(value)) for name, value in row.items()}
