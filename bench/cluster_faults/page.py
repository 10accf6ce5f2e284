"""The table of faults, docs/explanation/reliability.md. `make chaos` writes it."""

from datetime import UTC, datetime
from pathlib import Path

from cluster_faults.account import Account
from figures import commit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "reliability.md"
INTRODUCTION = """# Reliability

`make chaos` measured these figures and wrote this page. [Consistency and failures](consistency-and-failures.md)
describes why they are so.

Three NATS servers (three copies of each stream and bucket), Valkey, a ClickHouse server, and two replicas of each service run as separate
processes on one machine. {rate:g} calls a second with unique ids go through a balancer that follows `/readyz`, to an upstream that writes
down what it executes. A killed service starts again after 2 s, a NATS server after 8 s; a stopped one (SIGSTOP) continues after 16 s.
After each fault the calls are compared one by one.

- **recovery**: from the fault to the start of the last call that failed or took more than 2 s. 0 if there is none.
- **executed, not recorded**: the upstream or the caller has a result, and the record lacks the intent, the outcome, or the execution.
- **recorded, not executed**: charged in full as `outcome_unknown`, because it could not be excluded that they ran.
- **wrong money**: the difference of the ledger, the record and the executions, and reservations that remain; micro-dollars.
- **duplicates**: calls executed twice and events stored twice.
- **evidence**: the verdict of `toolbus audit verify` on an export of the whole record after the fault.

Measured {day}, commit {commit}, {calls:,} calls.

| fault | calls | failed | recovery, s | longest call, s | executed, not recorded | recorded, not executed | wrong money | duplicates | evidence |
|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501 - lines of a page
NOT_TRIED = """
Not tried by this command: partitions, slow links, full disks and changed clocks, which need network namespaces or file systems of their
own; a failover of Valkey (`tests/service/test_redis_connections.py`); ClickHouse as the real server (its place is taken by the
embedded engine behind HTTP).
"""  # noqa: E501 - lines of a page


def write(accounts: list[Account], rate: float) -> None:
    """Write the page."""
    about = {"day": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "rate": rate}
    calls = sum(each.calls for each in accounts)
    rows = "".join(f"| {' | '.join(_cells(each))} |\n" for each in accounts)
    PAGE.write_text(INTRODUCTION.format(calls=calls, **about) + rows + NOT_TRIED)


def line(account: Account) -> str:
    """Return the figures of a fault in one line."""
    return " | ".join(_cells(account))


def _cells(account: Account) -> list[str]:
    return [
        account.fault,
        f"{account.calls:,}",
        _counts(account.failed),
        f"{account.recovered:g}",
        f"{account.longest:g}",
        str(account.unrecorded),
        _counts(account.not_executed),
        str(account.wrong_money),
        str(account.duplicates),
        account.evidence,
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} `{name}`" for name, number in counts.items()) or "0"
