"""The lite form: one process, events in a file, exact budgets, and the move to the full form."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.waits import PATIENCE, until_blocking
from toolbus_common.contracts import BudgetState, LedgerQuery, LedgerReply
from toolbus_common.evidence import verify
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.settings import EVENTS_FILE, MOVED_EVENTS_FILE

SECRET = "tbk_bot_a-secret-of-the-lite-form"
SMALL = "tbk_small_a-secret-of-the-lite-form"
PRICE = 10_000  # micro-dollars
LIMIT = 7  # calls that the budget of the key `small` pays for
EVENTS = "SELECT stream_seq, line, id, event, key, charge, detail FROM events"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    directory = tmp_path / "upstream"
    directory.mkdir()
    with Upstream(directory).running() as server:
        yield server


def configuration(upstream: Upstream) -> dict[str, Any]:
    budget = {"usd": PRICE * LIMIT / 1e6, "per": "day"}
    return {
        "servers": {"echo": {"url": upstream.url}},
        "keys": {
            "bot": {"secret": SECRET, "tools": ["echo__say"], "budget": {"usd": 5, "per": "day"}},
            "small": {"secret": SMALL, "tools": ["echo__*"], "budget": budget},
        },
        "prices": {"echo__say": PRICE / 1e6},
    }


def test_the_lite_form_is_exact_and_moves_to_the_full_form(
    tmp_path: Path, upstream: Upstream
) -> None:
    lite = Launched(tmp_path, "--lite")
    document = configuration(upstream)
    with lite.running(document):
        lite.until_listed(lite.client(SECRET), "echo__say")
        an_sdk_client_calls_what_it_may(lite)
        concurrent_calls_spend_exactly_the_budget(lite)
        the_file_answers_audit_commands(lite)
        commands_that_need_clickhouse_say_what_to_do(lite)
        spent = settled(lite)
        assert spent["key:small"] == LIMIT * PRICE
        lite.stop(signal.SIGKILL)

    with lite.running():
        lite.until_listed(lite.client(SECRET), "echo__say")
        assert settled(lite) == spent
        assert lite.client(SMALL).call("echo__say", {"text": "more"}).code == "budget_exceeded"
        last = newest(lite)
        stored = in_order(lite.eventual_rows(EVENTS, lambda rows: stored_until(rows) >= last))

    full = Launched(tmp_path)
    full.port = lite.port
    with full.running():
        full.until_listed(full.client(SECRET), "echo__say")
        until_blocking((full.state_dir / MOVED_EVENTS_FILE).exists, "the file is moved")
        assert not (full.state_dir / EVENTS_FILE).exists()
        moved = {row["id"]: row for row in full.rows(f"{EVENTS} LIMIT 10000")}
        assert {row["id"]: moved.get(row["id"]) for row in stored} == {
            row["id"]: row for row in stored
        }
        doubles = "SELECT stream_seq, line FROM events GROUP BY stream_seq, line HAVING count() > 1"
        assert full.rows(doubles) == []
        assert settled(full) == spent
        assert full.client(SMALL).call("echo__say", {"text": "more"}).code == "budget_exceeded"
        assert full.client(SECRET).call("echo__say", {"text": "again"}).code == ""
        the_events_of_the_lite_form_are_proven(full, tmp_path)

    with pytest.raises(RuntimeError, match="The events of this state directory are in ClickHouse"):
        lite.start()
    assert lite.stop() == 1


def an_sdk_client_calls_what_it_may(lite: Launched) -> None:
    async def calls() -> None:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
            transport = streamable_http_client(lite.ready["endpoint"], http_client=http)
            async with SdkClient(transport) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["echo__say"]
                answer = await client.call_tool("echo__say", {"text": "hello"})
                assert not answer.is_error

    asyncio.run(calls())
    assert lite.client(SECRET).call("echo__count", {"id": "n"}).code == "unknown_tool"


def concurrent_calls_spend_exactly_the_budget(lite: Launched) -> None:
    def call(number: int) -> str:
        return lite.client(SMALL).call("echo__say", {"text": f"race {number}"}).code

    with ThreadPoolExecutor(16) as threads:
        codes = Counter(threads.map(call, range(4 * LIMIT)))
    assert codes == {"": LIMIT, "budget_exceeded": 3 * LIMIT}


def the_file_answers_audit_commands(lite: Launched) -> None:
    lite.eventual_rows(
        "SELECT id FROM events WHERE event = 'call.denied' AND code = 'budget_exceeded'",
        lambda rows: len(rows) == 3 * LIMIT,
    )
    lite.eventual_rows(
        "SELECT id FROM events WHERE event = 'call.completed'", lambda rows: len(rows) == LIMIT + 1
    )
    tail = lite.toolbus("audit", "tail", "--event", "call.denied", "--key", "bot", "--json")
    (denied,) = map(json.loads, tail.stdout.splitlines())
    assert (denied["event"], denied["tool"]) == ("call.denied", "count")
    completed = "SELECT sum(charge) AS paid FROM events WHERE event = 'call.completed'"
    query = lite.toolbus("audit", "query", completed, "--json")
    assert json.loads(query.stdout) == [{"paid": (LIMIT + 1) * PRICE}]
    assert lite.toolbus("audit", "dead-letters", "list").stdout.strip() == "No dead letters."
    for statement in ("DELETE FROM event_rows", "ATTACH 'x' AS x", "PRAGMA journal_mode = DELETE"):
        assert lite.toolbus("audit", "query", statement).returncode == 1
    assert query.stdout == lite.toolbus("audit", "query", completed, "--json").stdout


def commands_that_need_clickhouse_say_what_to_do(lite: Launched) -> None:
    for words in (
        ("audit", "query", "SELECT toStartOfHour(at), count() FROM events GROUP BY 1"),
        ("audit", "export", str(lite.directory / "export.jsonl")),
        ("audit", "report"),
    ):
        done = lite.toolbus(*words)
        assert done.returncode == 1, words
        assert "start it with 'toolbus up', without --lite" in done.stderr, words


def the_events_of_the_lite_form_are_proven(full: Launched, directory: Path) -> None:
    bundle = directory / "bundle.zip"

    def verified() -> bool:
        bundle.unlink(missing_ok=True)
        done = full.toolbus("audit", "export", str(bundle)), full.toolbus("audit", "key")
        if any(each.returncode for each in done):
            return False
        return verify.main([str(bundle), "--key", done[1].stdout.strip()]) == 0

    until_blocking(verified, "every event is in the log")


def settled(gateway: Launched) -> dict[str, int]:
    """Return what each level has spent, once no call is reserved."""

    async def request(bus: Bus) -> LedgerReply:
        return await RequestReply(OPERATOR, bus).request(
            LedgerQuery(customer="default"), LedgerReply, PATIENCE
        )

    def budgets() -> tuple[BudgetState, ...]:
        return tuple(gateway.on_the_bus(request).budgets)

    until_blocking(lambda: not any(each.reserved for each in budgets()), "all is settled")
    return {each.level: each.spent for each in budgets()}


def newest(gateway: Launched) -> int:
    """Return the sequence number of the newest event of the stream."""

    async def look(bus: Bus) -> int:
        return int(await bus.newest("EVENTS"))

    return gateway.on_the_bus(look)


def stored_until(rows: list[dict[str, Any]]) -> int:
    return max((int(row["stream_seq"]) for row in rows), default=0)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["stream_seq"], row["line"]))
