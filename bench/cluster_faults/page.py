"""The table of faults, docs/explanation/reliability.md. `make chaos` writes it."""

import json
import math
from pathlib import Path
from typing import Any

from cluster_faults.account import Account
from cluster_faults.faults import FAULTS
from figures import RESULTS
from toolbus_common.service.names import SERVICES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "reliability.md"
# The longest recovery, in seconds, by fault.
DEMANDS = {"NATS": 6.0, **{f"{service} killed": 2.0 for service in SERVICES}}
INTRODUCTION = """# Reliability

`make chaos` measured these figures and wrote this page. [Consistency and failures](consistency-and-failures.md)
describes why they are so.

Three NATS servers (three copies of each stream and bucket), Valkey, a ClickHouse server, and two replicas of each service run as separate
processes on one machine. {rate:g} calls a second with unique ids go through a balancer that follows `/readyz`, to an upstream that writes
down what it executes. A killed service starts again after 2 s, a NATS server after 8 s; a stopped one (SIGSTOP) continues after 16 s.
After each fault the calls are compared one by one.

- **recovery**: from the fault to the start of the last call that failed or took more than 2 s. 0 if there is none. It includes the
  return of a server and the time of a rolling restart, in which single calls may fail late. Bold: more than
  is demanded, which is 6 s for a NATS server and 2 s for a service.
- **executed, not recorded**: the upstream or the caller has a result, and the record lacks the intent, the outcome, or the execution.
- **recorded, not executed**: charged in full as `outcome_unknown`, because it could not be excluded that they ran.
- **wrong money**: the difference of the ledger, the record and the executions, and reservations that remain; micro-dollars.
- **duplicates**: calls executed twice and events stored twice.
- **evidence**: the verdict of `toolbus audit verify` on an export of the whole record after the fault.

Measured {day} in {minutes:.0f} minutes, commit {commit}, {calls:,} calls.

| fault | calls | failed | recovery, s | longest call, s | executed, not recorded | recorded, not executed | wrong money | duplicates | evidence |
|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501 - lines of a page
NOT_TRIED = """
Not tried by this command: partitions, slow links, full disks and changed clocks, which need network namespaces or file systems of their
own; a failover of Valkey (`tests/service/test_redis_connections.py`); ClickHouse as the real server (its place is taken by the
embedded engine behind HTTP).
"""  # noqa: E501 - lines of a page


def write() -> None:
    """Write the page from the newest run of all faults."""
    PAGE.write_text(text(newest()))


def newest() -> dict[str, Any]:
    """Return the newest stored run of all faults."""
    reports = (json.loads(each.read_text()) for each in RESULTS.glob("chaos-*.json"))
    whole = [each for each in reports if each["asked"]["only"] == list(FAULTS)]
    return max(whole, key=lambda each: str(each["at"]))


def text(report: dict[str, Any]) -> str:
    """Return the page."""
    accounts = [Account(**row) for row in report["rows"]]
    heading = INTRODUCTION.format(
        calls=sum(each.calls for each in accounts),
        day=report["at"][:10],
        commit=report["commit"],
        rate=report["asked"]["rate"],
        minutes=report["seconds"] / 60,
    )
    return heading + "".join(f"| {line(each)} |\n" for each in accounts) + NOT_TRIED


def line(account: Account) -> str:
    """Return the cells of a fault."""
    return " | ".join(
        (
            account.fault,
            f"{account.calls:,}",
            _counts(account.failed),
            _recovery(account),
            f"{account.longest:g}",
            str(account.unrecorded),
            _counts(account.not_executed),
            str(account.wrong_money),
            str(account.duplicates),
            account.evidence,
        )
    )


def _recovery(account: Account) -> str:
    kind = account.fault.partition(",")[0]
    demand = DEMANDS.get(kind, math.inf)
    return f"**{account.recovered:g}**" if account.recovered > demand else f"{account.recovered:g}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} `{name}`" for name, number in counts.items()) or "0"
