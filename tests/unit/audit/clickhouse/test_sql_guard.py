"""Statements that audit queries allow and reject."""

import pytest

from toolbus_audit.clickhouse.sql_guard import rejection

READING = (
    "SELECT count() FROM events",
    "WITH 1 AS x SELECT x",
    "SHOW TABLES",
    "DESCRIBE events",
    "EXPLAIN SELECT 1",
    "SELECT * FROM numbers(10)",
    "SELECT ' INTO OUTFILE ', 'file(1)'",
    "SELECT 1 AS `a FORMAT CSV`",
    "SELECT format('{} {}', key, tool), URLHash('x') FROM events",
    "SELECT filename, file FROM events",
)
REACHING = (
    *("file('/x')", "`file`('/x')", "FILE ('/x')", "fileCluster('c', '/x')", "filesystem('/x')"),
    *("sqlite('/x', 't')", "url('http://h/')", "urlCluster('c', 'http://h/')", "s3('http://h/')"),
    *("gcs('http://h/')", "icebergLocal('/x')", "deltaLake('http://h/')", "hudi('http://h/')"),
    *("mysql('h', 'd', 't', 'u', 'p')", "postgresql('h', 'd', 't', 'u', 'p')", "redis('h', 'k')"),
    *("mongodb('h')", "odbc('DSN', 't')", "jdbc('DSN', 't')", "remoteSecure('h', 'd', 't')"),
    *("cluster('c', 'd', 't')", "clusterAllReplicas('c', 'd', 't')", "executable('id')"),
    *("Python(x)", "eval('SELECT 1')", "loop(events)", "aiGenerate('x')"),
)


@pytest.mark.parametrize("sql", READING)
def test_a_statement_that_reads_the_tables_is_answered(sql: str) -> None:
    assert rejection(sql) == ""


@pytest.mark.parametrize("call", REACHING)
def test_a_function_that_accesses_more_than_the_tables_is_rejected_by_name(call: str) -> None:
    reason = f"{call.partition('(')[0].strip('` ')}() is not allowed, because it reads more than"
    assert rejection(f"SELECT * FROM {call}").startswith(reason)
    assert rejection(f"SELECT 'a\\'b', {call}").startswith(reason)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO events VALUES (1)", "Only a read-only statement"),
        ("DROP TABLE events", "Only a read-only statement"),
        ("SET readonly = 0", "Only a read-only statement"),
        ("SELECT 1 INTO OUTFILE '/x'", "INTO OUTFILE"),
        ("SELECT 1 AS `a'b` INTO OUTFILE '/x' FORMAT CSV", "INTO OUTFILE"),
        ("SELECT 1 PARALLEL WITH DROP TABLE events", "PARALLEL WITH"),
        ("SELECT 1 FORMAT CSV", "Remove FORMAT"),
        ("DESCRIBE TABLE view(SELECT 1)", "DESCRIBE"),
    ],
)
def test_anything_but_one_read_only_statement_is_rejected_with_the_reason(
    sql: str, reason: str
) -> None:
    assert reason in rejection(sql)
