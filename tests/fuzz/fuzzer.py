"""Parallel sending of seeded mutations of real requests, with a report of wrong answers."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from fuzz.fuzzed_gateway import FuzzedGateway, Seed
from fuzz.mutations import mutated
from harness.network.raw_requests import exchange

AT_ONCE = 6
PATIENCE = 60.0  # a bound: without an answer for this long, something hangs
INTERNAL = 500
MAX_SHOWN = 10
# Log events that only a defect writes: an unexpected exception.
TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Report:
    """The result of a run."""

    seed: int
    sent: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the counts, the seed and the wrong answers."""
        statuses = ", ".join(f"{status}: {n}" for status, n in sorted(self.statuses.items()))
        done = f"{self.sent} requests to {len(self.kinds)} endpoints in {self.seconds:.0f} s"
        lines = [
            f"seed {self.seed}: {done}, {len(self.wrong)} wrong",
            f"answers by status (0: closed without one): {statuses}",
            *self.wrong[:MAX_SHOWN],
        ]
        return "\n".join(lines)


def fuzz(
    place: FuzzedGateway, seed: int, *, seconds: float = 0.0, maximum: int = 0, only: int = -1
) -> Report:
    """Send until the time or the number of requests is reached, or only request number `only`."""
    report, began, lock = Report(seed), time.monotonic(), threading.Lock()
    numbers = itertools.count() if only < 0 else iter([only])

    def next_number() -> int | None:
        with lock:
            over = bool(seconds) and time.monotonic() - began > seconds
            number = None if over or (maximum and report.sent >= maximum) else next(numbers, None)
            report.sent += number is not None
            return number

    def work() -> None:
        while (number := next_number()) is not None:
            status, why, kind = _tried(place, seed, number)
            with lock:
                report.statuses[status] += 1
                report.kinds[kind] += 1
                if why:
                    report.wrong.append(f"number {number}, {kind}: {why}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(work) for _ in range(AT_ONCE)]:
            done.result()
    report.wrong += _of_the_log(place)
    report.seconds = time.monotonic() - began
    return report


def _tried(place: FuzzedGateway, seed: int, number: int) -> tuple[int, str, str]:
    """Return the status of one mutation's answer, its fault, and its kind."""
    random = Random(f"{seed}/{number}")
    chosen: Seed = place.seeds[number % len(place.seeds)]
    request = mutated(chosen.request, random)
    sent = request.encode()
    try:
        answer = exchange(chosen.port, sent, PATIENCE, whole=request.framed)
    except TimeoutError:
        return -1, f"no answer in {PATIENCE:g} s to {sent[:2000]!r}", chosen.name
    except ConnectionRefusedError:
        return -2, f"nothing listens any longer after {sent[:2000]!r}", chosen.name
    if request.framed and not answer.status:
        return 0, f"closed without an answer to {sent[:2000]!r}", chosen.name
    if answer.status == INTERNAL or TRACEBACK.encode() in answer.body:
        return (
            answer.status,
            f"{answer.status} {answer.body[:300]!r} to {sent[:2000]!r}",
            chosen.name,
        )
    return answer.status, "", chosen.name


def _of_the_log(place: FuzzedGateway) -> Iterator[str]:
    """Return the logged tracebacks, one of each kind."""
    found: dict[str, str] = {}
    for line in place.launched.logs().splitlines():
        if TRACEBACK in line or '"exception"' in line:
            try:
                body = json.loads(line)
            except ValueError:
                body = {"event": "unstructured", "exception": line}
            exception = str(body.get("exception", line))
            last = exception.strip().splitlines()[-1]
            where = [each for each in exception.splitlines() if each.lstrip().startswith("File")]
            found.setdefault(f"{body.get('event')} {where[-1:]} {last[:200]}", exception[-1500:])
    return (f"logged: {kind}\n{text}" for kind, text in found.items())
