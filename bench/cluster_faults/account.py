"""The outcome of each call of a load: executed, recorded, charged; and the evidence of the log."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster_faults.installation import PRICE, Installation
from cluster_faults.load import RecordedLoad
from harness.engines.engine import installed
from harness.services.ledger_totals import spent_and_reserved
from harness.waits import until_blocking

SETTLE_SECONDS = 150.0  # maximum; messages that no replica acknowledged return after 30 s
ALIKE = 3  # equal consecutive reads after which a result is final
SLOW = 2.0  # seconds; a call that takes longer is not yet recovered
PARTS = 8  # replies of audit are limited
# A row for each call: its intents, outcomes of each kind, and charge.
_RECORDED = """
SELECT groupArray((trace_id, intents, completed, failed, unknown, charge)) AS found FROM (
    SELECT trace_id, countIf(event = 'call.allowed') AS intents,
        countIf(event = 'call.completed') AS completed,
        countIf(event = 'call.failed' AND NOT late) AS failed, countIf(late) AS unknown,
        if(completed + failed > 0,
            argMinIf(charged, (stream_seq, line), event != 'call.allowed' AND NOT late),
            maxIf(charged, late)) AS charge
    FROM (SELECT *, charge AS charged, endsWith(id, '.unknown') AS late FROM events
        WHERE event IN ('call.allowed', 'call.completed', 'call.failed'))
    WHERE cityHash64(trace_id) % {parts} = {part}
    GROUP BY trace_id)
"""
_TWICE = "SELECT count() - uniqExact(id) AS twice FROM events"


@dataclass(frozen=True)
class Recorded:
    """What the record has about one call."""

    intents: int
    completed: int
    failed: int
    unknown: int
    charge: int

    @property
    def has_ended(self) -> bool:
        """Whether there is an outcome."""
        return bool(self.completed + self.failed + self.unknown)


NOTHING = Recorded(0, 0, 0, 0, 0)


@dataclass
class Account:
    """The figures of one fault. Amounts are in micro-dollars."""

    fault: str
    calls: int = 0
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    recovered: float = 0.0  # seconds from the fault to the last call that failed or was slow
    during: float = -1.0  # the same, of the calls before everything ran again; -1: not measured
    after: float = -1.0  # seconds from that moment to the last of the later calls
    longest: float = 0.0  # seconds of the longest answered call
    unrecorded: int = 0  # executed or answered, and not in the record with intent and outcome
    not_executed: dict[str, int] = field(default_factory=dict)  # recorded, by kind of outcome
    wrong_money: int = 0
    duplicates: int = 0  # calls executed twice, events stored twice
    evidence: str = ""
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing is lost, doubled or charged wrongly."""
        return not (
            self.unrecorded
            or self.wrong_money
            or self.duplicates
            or "completed" in self.not_executed
        )

    def note_trouble(self, began: Sequence[float], at: float, returned: float) -> None:
        """Set the times of recovery from when the calls began that failed or were slow."""
        self.recovered = round(max([0.0, *(each - at for each in began)]), 1)
        before = (each - at for each in began if each <= returned)
        self.during = round(max([0.0, *before]), 1)
        self.after = round(max([0.0, *(each - returned for each in began)]), 1)


class Accountant:
    """Compares the calls at the upstream with the record and with the ledger."""

    def __init__(self, place: Installation) -> None:
        self._place = place
        self._spent = 0
        self._twice = 0

    def start_here(self) -> None:
        """Leave out what was spent so far."""
        until_blocking(lambda: not spent_and_reserved(self._place.valkey.primary_url)[1], "no call")
        self._spent = spent_and_reserved(self._place.valkey.primary_url)[0]
        self._twice = self._doubled_rows()

    def settled(self, fault: str, load: RecordedLoad, at: float, returned: float) -> Account:
        """Return the account of a load when it no longer changes.

        The fault began at `at`, and everything ran again at `returned` (monotonic seconds).
        """
        found = Account(fault, load.made, len(load.succeeded), dict(load.failed))
        if load.broken:
            found.failed["connection broken"] = load.broken
        if load.wrong:
            found.failed["wrong answer"] = len(load.wrong)
        slow = (each.began for each in load.succeeded if each.at - each.began > SLOW)
        found.note_trouble([*load.troubled, *slow], at, returned)
        found.longest = round(max((each.at - each.began for each in load.succeeded), default=0), 2)
        give_up, alike, before = time.monotonic() + SETTLE_SECONDS, 0, -1
        while time.monotonic() < give_up and alike < ALIKE:
            recorded = self._look(found, load)
            alike = alike + 1 if found.sound and recorded == before else 0
            before = recorded
            time.sleep(1.0)
        self._spent = spent_and_reserved(self._place.valkey.primary_url)[0]
        self._twice = self._doubled_rows()
        found.evidence = evidence(self._place)
        return found

    def _look(self, found: Account, load: RecordedLoad) -> int:
        """Fill in the figures, and return the number of recorded outcomes."""
        arrived = Counter(str(each.get("id", "")) for each in self._place.upstream.arrived())
        record = dict(self._recorded())
        charged = compare(found, load, arrived, record)
        spent, reserved = spent_and_reserved(self._place.valkey.primary_url)
        found.wrong_money += abs(spent - self._spent - charged) + reserved
        found.duplicates += self._doubled_rows() - self._twice
        return sum(record[each.trace].has_ended for each in load.calls if each.trace in record)

    def _recorded(self) -> Iterator[tuple[str, Recorded]]:
        for part in range(PARTS):
            (row,) = self._place.eventual_rows(_RECORDED.format(parts=PARTS, part=part))
            for trace, *counts in row["found"]:
                yield str(trace), Recorded(*map(int, counts))

    def _doubled_rows(self) -> int:
        (row,) = self._place.eventual_rows(_TWICE)
        return int(row["twice"])


def compare(
    found: Account, load: RecordedLoad, arrived: Counter[str], record: dict[str, Recorded]
) -> int:
    """Fill in what the calls came to, and return their charges by the record."""
    answered = {each.call.id for each in load.succeeded}
    not_executed: Counter[str] = Counter()
    charged = found.unrecorded = found.wrong_money = 0
    for call in load.calls:
        entry = record.get(call.trace, NOTHING)
        is_executed = arrived[call.id] > 0
        if is_executed or call.id in answered:
            found.unrecorded += not (entry.intents and entry.has_ended and is_executed)
        elif entry.completed or entry.charge:
            not_executed["completed" if entry.completed else "outcome_unknown"] += 1
        owed = PRICE if is_executed or (entry.charge and entry.unknown) else 0
        found.wrong_money += abs(entry.charge - owed)
        charged += entry.charge
    found.not_executed = dict(not_executed)
    found.duplicates = sum(max(0, arrived[each.id] - 1) for each in load.calls)
    return charged


def evidence(place: Installation) -> str:
    """Export the evidence and verify it offline; return `valid`, or what was found."""
    bundle = place.state_dir / "evidence.zip"
    key = _toolbus(place, "audit", "key")
    _toolbus(place, "audit", "export", str(bundle))
    report: dict[str, Any] = json.loads(
        _toolbus(place, "audit", "verify", str(bundle), "--key", key.strip(), "--json")
    )
    kinds = Counter(each["kind"] for each in report["findings"])
    return "valid" if report["valid"] else ", ".join(f"{n} {kind}" for kind, n in kinds.items())


def _toolbus(place: Installation, *words: str) -> str:
    at = ["--state-dir", str(place.state_dir)] if words[1] != "verify" else []
    environment = {**os.environ, "TOOLBUS_NATS_URL": place.nats_url}
    done = subprocess.run(
        [installed("toolbus"), *words, *at],
        env=environment,
        capture_output=True,
        text=True,
        check=words[1] != "verify",  # which fails if the evidence is not valid
    )
    return done.stdout
