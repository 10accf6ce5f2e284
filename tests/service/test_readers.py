"""Readers over ClickHouse's HTTP interface, on the real engine: no reader sees another customer."""

import asyncio
import gzip
import http.client
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pytest
import pytest_asyncio
from clickhouse_connect.driver.exceptions import DatabaseError

from harness.engines.migrated_tables import migrated
from toolbus_audit.bi_gateway.executor import QueryExecutor
from toolbus_audit.bi_gateway.server import serve_readers
from toolbus_audit.clickhouse.row_mapper import CheckpointRow, DeadRow, EventRow, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.ingest.rollups import roll_up_days, roll_up_hours
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.config import Reader
from toolbus_common.config_store.drafts import hashed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a-secret-of-a-reader-0123"
CANARY = "canary-of-beta"
AT = 1_763_708_342.0


def event(number: int, customer: str, tool: str) -> EventRow:
    return EventRow(
        event="call.completed",
        id=f"c{number}.completed",
        at=AT + number,
        producer="executor-1",
        seq=number,
        customer=customer,
        key=f"{customer}-bot",
        call_id=f"c{number}",
        server="docs",
        tool=tool,
        charge=1000,
        latency_us=2000,
        stream_seq=number,
        detail=json.dumps({"said": tool}),
    )


ROWS = [
    *(event(number, "acme", "search") for number in range(1, 4)),
    *(event(number, "beta", CANARY) for number in range(4, 9)),
]
READERS = {
    "ann": Reader(customers=("acme",), secret_hash=hashed(SECRET)),
    "ben": Reader(customers=("beta", "gamma"), secret_hash=hashed(SECRET)),
    "carl": Reader(customers=("*",), secret_hash=hashed(SECRET)),
    "dora": Reader(customers=("acme",)),
}


@dataclass
class Response:
    """A response over HTTP."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass
class Endpoint:
    """The HTTP interface of readers."""

    port: int

    async def request(
        self, sql: str, user: str = "ann", secret: str = SECRET, *, method: str = "POST",
        headers: dict[str, str] | None = None, **given: str,
    ) -> Response:  # fmt: skip
        keys = headers if headers is not None else {
            "X-ClickHouse-User": user, "X-ClickHouse-Key": secret,
        }  # fmt: skip
        return await asyncio.to_thread(self._ask, method, sql, keys, given)

    async def ask_with(self, sql: str, given: dict[str, str]) -> Response:
        """Send a query as ann, with these URL parameters."""
        keys = {"X-ClickHouse-User": "ann", "X-ClickHouse-Key": SECRET}
        return await asyncio.to_thread(self._ask, "POST", sql, keys, given)

    def _ask(
        self, method: str, sql: str, headers: dict[str, str], given: dict[str, str]
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            path = "/?" + urlencode(given | ({"query": sql} if method == "GET" else {}))
            connection.request(method, path, sql.encode() if method == "POST" else None, headers)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, answer.read(), fields)
        finally:
            connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Endpoint]:
    """Run the listener on the real engine, with eight events of two customers."""
    store = ClickHouse(AuditSettings(state_dir=migrated(tmp_path_factory.mktemp("readers"))))
    await store.open()
    answering = QueryExecutor(store, lambda: READERS, 10.0)
    try:
        await store.insert("events", ROWS, token(ROWS))
        dead = [DeadRow(AT, 9, 0, "tb.event.x.beta", "no JSON", CANARY, "00")]
        await store.insert("dead_letters", dead, token(dead))
        items = [CheckpointRow("beta", "1", 5, int(AT), 8, (), CANARY)]
        await store.insert("checkpoints", items, "checkpoint")
        assert await roll_up_hours(store.run_in_background)
        assert await roll_up_days(store.run_in_background)
        async with serve_readers(answering.execute, lambda *_: None, "127.0.0.1", 0) as port:
            yield Endpoint(port)
    finally:
        answering.close()
        await store.close()


async def test_a_reader_sees_only_the_events_of_their_customers(endpoint: Endpoint) -> None:
    counted = "SELECT customer, count() FROM events GROUP BY customer ORDER BY customer"
    assert (await endpoint.request(counted)).text == "acme\t3\n"
    assert (await endpoint.request(counted, "ben")).text == "beta\t5\n"
    assert (await endpoint.request(counted, "carl")).text == "acme\t3\nbeta\t5\n"


@pytest.mark.parametrize(
    "view",
    [
        "events_by_hour",
        "calls_by_hour",
        "events_by_day",
        "calls_by_day",
        "hours",
        "days",
        "runs",
        "approvals",
        "config_changes",
        "rejections",
        "model_requests",
        "models_by_hour",
        "models_by_day",
        "usage",
    ],
)
async def test_views_show_no_more_than_the_events_below_them(endpoint: Endpoint, view: str) -> None:
    reply = await endpoint.request(f"SELECT * FROM {view} FORMAT JSONEachRow")
    assert reply.status == 200, reply.text
    assert "beta" not in reply.text
    for summed in ("calls_by_hour", "calls_by_day"):
        summary = await endpoint.request(f"SELECT sum(calls), sum(charge) FROM {summed}")
        assert summary.text == "3\t3000\n"


# Each statement is rejected, or answers only from the reader's own rows.
ROUND = (
    "SELECT * FROM events WHERE customer = 'beta'",
    "SELECT * FROM events WHERE 1 OR customer = 'beta'",
    "SELECT * FROM toolbus.events",
    "SELECT * FROM `toolbus`.`events`",
    "SELECT * FROM events FINAL",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM events))",
    "WITH other AS (SELECT * FROM events) SELECT * FROM other",
    "SELECT * FROM events UNION ALL SELECT * FROM events",
    "SELECT * FROM events AS a FULL JOIN events AS b ON a.id = b.id",
    "SELECT (SELECT groupArray(tool) FROM events)",
    "SELECT 1 WHERE 'canary-of-beta' IN (SELECT tool FROM events)",
    "SELECT count() FROM events WHERE throwIf(customer = 'beta', concat('canary', tool))",
    "SELECT count() FROM events PREWHERE throwIf(tool = 'canary-of-beta', 'there is a beta')",
    "SELECT intDiv(1, customer != 'beta') FROM events",
    "SELECT * FROM events SETTINGS log_comment = 'beta'",
    "SELECT * FROM (SELECT * FROM events SETTINGS log_comment = '*')",
    "SELECT * FROM events SETTINGS readonly = 0, log_comment = ''",
    "SELECT * FROM events SETTINGS additional_table_filters = {}",
    "SET log_comment = '*'",
    "SELECT * FROM events SETTINGS use_skip_indexes = 0",
    "SELECT * FROM dead_letters",
    "SELECT * FROM checkpoints",
    "SELECT * FROM merge('toolbus', 'events')",
    "SELECT * FROM merge(REGEXP('.*'), 'events')",
    "SELECT * FROM mergeTreeProjection('toolbus', 'events', 'by_hour')",
    "SELECT * FROM mergeTreeProjection(toolbus, events, by_hour)",
    "SELECT * FROM mergeTreeIndex('toolbus', 'events', with_marks = true)",
    "SELECT * FROM view(SELECT * FROM events)",
    "SELECT * FROM loop(events) LIMIT 9",
    "SELECT * FROM remote('127.0.0.1', 'toolbus.events')",
    "SELECT * FROM cluster('default', 'toolbus.events')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'a String')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT file('/etc/passwd')",
    "SELECT * FROM executable('id', 'LineAsString', 'a String')",
    "SELECT * FROM sqlite('{out}', 't')",
    "SELECT * FROM python(x)",
    "SELECT * FROM eval('SELECT * FROM events')",
    "SELECT * FROM system.errors",
    "SELECT * FROM `system`.`errors`",
    'SELECT * FROM "system"."processes"',
    "SELECT * FROM system . parts",
    "SELECT * FROM system/**/.query_log",
    "SELECT * FROM system.users",
    "SELECT * FROM system.row_policies",
    "SELECT 1 WHERE 'x' IN system.errors",
    "SELECT * FROM merge('system', '^(errors|processes)$')",
    "SELECT * FROM {table:Identifier}",
    "SELECT * FROM {db:Identifier}.errors",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "EXPLAIN SELECT * FROM events",
    "EXPLAIN ESTIMATE SELECT * FROM events",
    "DESCRIBE (SELECT * FROM events)",
    "SELECT * FROM events INTO OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' FORMAT CSV",
    "SELECT * FROM events FORMAT Template",
    "SELECT * FROM events FORMAT Protobuf",
    "SELECT 1; SELECT * FROM events",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "EXECUTE AS default SELECT * FROM events",
    "INSERT INTO events (customer) VALUES ('acme')",
    "INSERT INTO FUNCTION file('{out}', 'CSV', 'a Int64') SELECT 1",
    "CREATE TABLE other AS events",
    "CREATE TEMPORARY TABLE other AS SELECT * FROM events",
    "CREATE VIEW other AS SELECT * FROM events",
    "ALTER TABLE events DELETE WHERE 1",
    "DROP TABLE events",
    "USE system",
    "BACKUP TABLE events TO File('{out}')",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "SELECT hasColumnInTable('127.0.0.1:1', 'u', 'p', 'toolbus', 'events', 'id')",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT getServerSetting('path')",
    "SELECT logTrace('x')",
)


@pytest.mark.parametrize("sql", ROUND)
async def test_no_statement_shows_another_customer(
    endpoint: Endpoint, tmp_path: Path, sql: str
) -> None:
    out = tmp_path / "out"
    reply = await endpoint.request(
        sql.replace("{out}", str(out)), param_table="errors", param_db="system"
    )
    assert CANARY not in reply.text
    assert "beta-bot" not in reply.text
    assert "there is a beta" not in reply.text
    assert not out.exists()
    if reply.status == 200:  # an answer is about the reader's own three events, or about none
        mine = "SELECT count(), uniqExact(customer) FROM events"
        assert sql.startswith(("SELECT", "WITH"))
        assert (await endpoint.request(mine)).text == "3\t1\n"
    else:
        assert reply.text.startswith("Code: ")
        assert int(reply.headers["x-clickhouse-exception-code"]) > 0


async def test_no_url_parameter_extends_what_a_reader_sees(endpoint: Endpoint) -> None:
    sql = "SELECT count() FROM events"
    for name, value in {
        "log_comment": "*", "additional_table_filters": "{}", "role": "x", "readonly": "0",
        "limit": "1", "allow_ddl": "1",
    }.items():  # fmt: skip
        result = await endpoint.ask_with(sql, {name: value})
        assert result.text == "3\n" or result.status == 403, (name, result.text)
    assert (
        await endpoint.request(sql, max_execution_time="3600", max_result_rows="5")
    ).text == "3\n"
    assert (await endpoint.request(sql, database="system")).status == 404


async def test_a_reader_needs_the_secret(endpoint: Endpoint) -> None:
    for user, secret in (
        ("ann", "x" * 24),
        ("nobody", SECRET),
        ("", ""),
        ("dora", ""),
        ("dora", SECRET),
    ):
        reply = await endpoint.request("SELECT 1", user, secret)
        assert (reply.status, reply.headers["x-clickhouse-exception-code"]) == (403, "516")
    basic = b64encode(f"ann:{SECRET}".encode()).decode()
    reply = await endpoint.request("SELECT 1", headers={"Authorization": f"Basic {basic}"})
    assert reply.text == "1\n"
    assert (await endpoint.request("SELECT 1", headers={}, user="ann")).status == 403


async def test_formats_parameters_and_methods_are_those_of_clickhouse(endpoint: Endpoint) -> None:
    request = "SELECT {n:UInt8} + 1 AS n, {text:String} AS text"
    reply = await endpoint.request(request, param_n="1", param_text="it's", default_format="JSON")
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-clickhouse-format"] == "JSON"
    assert json.loads(reply.body)["data"] == [{"n": 2, "text": "it's"}]
    assert (await endpoint.request("SELECT 1 FORMAT CSVWithNames")).text == '"1"\n1\n'
    for sql in ("", "SELECT 1"):
        unknown = await endpoint.request(sql, default_format="CSV\n№")
        assert (unknown.status, "is not supported" in unknown.text) == (400, True)
    assert (await endpoint.request("", default_format="CSV")).text == "Ok.\n"
    assert (await endpoint.request("SELECT 2", method="GET")).text == "2\n"
    assert (await endpoint.request("SELECT 1 +")).headers["x-clickhouse-exception-code"] == "62"
    zipped = await endpoint.request(
        "SELECT 3", enable_http_compression="1",
        headers={"X-ClickHouse-User": "ann", "X-ClickHouse-Key": SECRET, "Accept-Encoding": "gzip"},
    )  # fmt: skip
    assert gzip.decompress(zipped.body) == b"3\n"


async def test_an_answer_is_limited_in_rows_time_and_size(endpoint: Endpoint) -> None:
    many = await endpoint.request("SELECT number FROM numbers(1000001)")
    assert (many.status, many.headers["x-clickhouse-exception-code"]) == (400, "396")
    long = await endpoint.request("SELECT count() FROM numbers(1e15)", max_execution_time="0.5")
    assert long.headers["x-clickhouse-exception-code"] in ("159", "307")
    large = await endpoint.request(f"SELECT '{'x' * 300_000}'")
    assert large.status == 400


async def test_the_python_client_reads_rows_with_types(endpoint: Endpoint) -> None:
    def query_rows() -> list[Any]:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=endpoint.port, username="ann", password=SECRET,
            database="toolbus", autogenerate_session_id=False,
        )  # fmt: skip
        try:
            found = client.query(
                "SELECT key, charge, is_error, shadow FROM events WHERE charge > {least:Int64}",
                parameters={"least": 10},
            )
            with pytest.raises(DatabaseError):
                client.command("DROP TABLE events")
            return list(found.result_rows)
        finally:
            client.close()

    assert await asyncio.to_thread(query_rows) == [("acme-bot", 1000, False, [])] * 3


async def test_the_go_client_gets_the_revision_it_can_read(endpoint: Endpoint) -> None:
    hello = "SELECT displayName(), version(), revision(), timezone()"
    reply = await endpoint.request(hello, default_format="Native", client_protocol_version="54460")
    assert reply.body.startswith(
        bytes([1, 0, 2, 255, 255, 255, 255, 0, 4, 1, 13]) + b"displayName()"
    )
    assert b"\x0arevision()\x06UInt32\0" + bytes(4) in reply.body
    plain = await endpoint.request(
        "SELECT 1", default_format="Native", client_protocol_version="54460"
    )
    assert plain.body == bytes([1, 1, 1]) + b"1" + bytes([5]) + b"UInt8" + bytes([1])


async def test_a_ping_needs_no_reader(endpoint: Endpoint) -> None:
    def pinged() -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read()
        finally:
            connection.close()

    assert await asyncio.to_thread(pinged) == b"Ok.\n"
