"""The table of faults, docs/explanation/reliability.md. `make chaos` writes it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster_faults.account import SLOW, Account
from cluster_faults.capacity import CAPACITY_SECONDS
from cluster_faults.faults import FAULTS
from figures import RESULTS
from toolbus_common.service.names import SERVICES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "reliability.md"
# The longest recovery, in seconds, by fault.
DEMANDS = {"NATS": 6.0, **{f"{service} killed": 2.0 for service in SERVICES}}
INTRODUCTION = """# Reliability

`make chaos` measured these figures and wrote this page. [Consistency and failures](consistency-and-failures.md)
describes why they are so.

Three NATS servers (three copies of each stream and bucket), Valkey with a replica and a sentinel, a ClickHouse server, and two replicas of
each service run as separate processes on one machine. Each NATS server has a network namespace and a file system (tmpfs, 1 GiB) of its own.
Calls with unique ids go through a balancer that follows `/readyz`, to an upstream that writes down what it executes.
A killed service starts again after 2 s, a NATS server after 8 s. A stopped server (SIGSTOP), a cut link and a slow link last 16 s, and so
does a full disk. After each fault the calls are compared one by one.

- **cut**: the kernel drops packets; connections stay open. "Cannot send" drops one direction only.
- **slow link**: 2 Mbit/s with up to 200 ms of queue in each direction, and 2 % of the packets lost. At 15 calls/s, the queue of what the
  leader sends overflows: it took 4,827 packets (2.6 MB) in 16 s and dropped 2,520. Calls wait for acknowledgements on this link as long
  as the server leads the stream; no other server takes the lead, because its heartbeats arrive. So this demand is not met.
- **disk full**: NATS stops its streams on a server without space until it is restarted. After 16 s, the server is killed (SIGKILL)
  and started with a free disk, which breaks connections again: "after the return" counts from this kill.
- **clocks**: those of the first replica of each service, by libfaketime; timers are not affected.
- **rolling restart**: services by SIGTERM; each NATS server first gets SIGUSR2 (lame duck mode), and SIGTERM 5 s later.

- **recovery**: from the fault to the start of the last call that failed or took more than 2 s, and that began before everything ran
  again. 0 if there is none. The end of a fault is the return of a server, or the end of the last restart.
- **after the return**: from that end to the start of the last such call. A server of NATS that returns with an outdated state starts
  elections ([ADR 64](../adr/0064-routes-are-given-up.md)). Earlier runs measured both as one time, from the fault to the last
  call; then this column has "in it".
- Bold: more than is demanded, which is 6 s for a NATS server and 2 s for a service.
- **executed, not recorded**: the upstream or the caller has a result, and the record lacks the intent, the outcome, or the execution.
- **recorded, not executed**: charged in full as `outcome_unknown`, because it could not be excluded that they ran.
- **wrong money**: the difference of the ledger, the record and the executions, and reservations that remain; micro-dollars.
- **duplicates**: calls executed twice and events stored twice.
- **evidence**: the verdict of `toolbus audit verify` on an export of the whole record after the fault.

{count} faults, {calls:,} calls. Of each fault, the newest measurement is shown; they were made between {first} and {last} (UTC). `-dirty` runs
include changes after the commit.

| fault | calls | failed | recovery, s | after the return, s | longest call, s | executed, not recorded | recorded, not executed | wrong money | duplicates | evidence | calls/s | commit |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501 - lines of a page
PLAIN = """
One Valkey server, no network namespaces and no file systems of their own: commit {commits}.
"""
CARRIED = """
Without a fault, the machine carried these rates beside the cluster for {seconds:g} s each. A rate is carried if every call succeeds and none
takes more than {slow:g} s.

| calls a second | calls | failed | longest call, s | load average | carried |
|---|---|---|---|---|---|
"""  # noqa: E501 - lines of a page
NOT_TRIED = """
Not tried by this command: a delay of packets without a limit of their rate, clocks of NATS, Valkey and ClickHouse, full disks of Valkey and
ClickHouse, and ClickHouse as the real server (its place is taken by the embedded engine behind HTTP).
"""  # noqa: E501 - lines of a page


def write() -> None:
    """Write the page from the newest measurement of each fault."""
    PAGE.write_text(text(reports()))


def reports() -> list[dict[str, Any]]:
    """Return the stored runs, oldest first."""
    found = (json.loads(each.read_text()) for each in RESULTS.glob("chaos-*.json"))
    return sorted(found, key=lambda each: str(each["at"]))


def text(runs: Sequence[dict[str, Any]]) -> str:
    """Return the page: of each fault, its newest measurement."""
    newest = {row["fault"]: (Account(**row), run) for run in runs for row in run["rows"]}
    found = [newest[name] for name in FAULTS if name in newest]
    missing = [name for name in FAULTS if name not in newest]
    rates = [run["carried"] for run in runs if run.get("carried")]
    heading = INTRODUCTION.format(
        calls=sum(account.calls for account, _ in found),
        count=len(found),
        first=min(run["at"] for _, run in found)[:16].replace("T", " "),
        last=max(run["at"] for _, run in found)[:16].replace("T", " "),
    )
    table = "".join(
        f"| {line(account)} | {run['asked']['rate']:g} | {run['commit'][:10]} |\n"
        for account, run in found
    )
    unmeasured = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    earlier = sorted({run["commit"][:10] for _, run in found if "carried" not in run})
    plain = PLAIN.format(commits=", ".join(earlier)) if earlier else ""
    return heading + table + unmeasured + plain + (_carried(rates[-1]) if rates else "") + NOT_TRIED


def _carried(rates: list[dict[str, Any]]) -> str:
    lines = (
        f"| {each['rate']:g} | {each['calls']:,} | {_counts(each['failed'])} | {each['longest']:g} "
        f"| {each['load']:.1f} | {'yes' if each['carried'] else 'no'} |\n"
        for each in rates
    )
    return CARRIED.format(seconds=CAPACITY_SECONDS, slow=SLOW) + "".join(lines)


def line(account: Account) -> str:
    """Return the cells of a fault."""
    return " | ".join(
        (
            account.fault,
            f"{account.calls:,}",
            _counts(account.failed),
            *_recovery(account),
            f"{account.longest:g}",
            str(account.unrecorded),
            _counts(account.not_executed),
            str(account.wrong_money),
            str(account.duplicates),
            account.evidence,
        )
    )


def _recovery(account: Account) -> tuple[str, str]:
    demand = DEMANDS.get(account.fault.partition(",")[0], math.inf)

    def shown(seconds: float) -> str:
        return f"**{seconds:g}**" if seconds > demand else f"{seconds:g}"

    if account.during < 0:
        return shown(account.recovered), "in it"
    return shown(account.during), shown(account.after)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} `{name}`" for name, number in counts.items()) or "0"
