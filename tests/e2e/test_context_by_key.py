"""The context cost of lists and calls by key, as analysts query it: sent, and without Toolbus."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.clients.bus_operator import Row, key
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration
from toolbus_common.mcp.builtin_server import EXECUTE
from toolbus_common.saved_queries import catalogue as saved

WIDE, NARROW, CODER = (f"tbk_{name}_a-secret-of-contexts" for name in ("wide", "narrow", "coder"))
TEXT = "x" * 4000
SINCE = "toDateTime('2020-01-01 00:00:00', 'UTC')"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a gateway with one server; its keys see all tools, one tool, and code mode."""
    upstream = Upstream(tmp_path_factory.mktemp("upstream"))
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), TOOLBUS_CONTEXT_SECONDS="0.5")
    declared = Configuration.model_validate(
        {
            "servers": {"echo": {"url": upstream.url}},
            "keys": {
                "wide": key(WIDE),
                "narrow": key(NARROW, "echo__say"),
                "coder": key(CODER, code_mode=True),
            },
        }
    )
    with upstream.running(), cluster.running(declared, fused=True, additional=("codemode",)):
        cluster.until_listed(cluster.client(WIDE), "echo__say")
        yield cluster


def rows_of(cluster: Cluster, name: str, *awaited: str) -> dict[str, Row]:
    """Return the saved query's rows of one key, once the awaited rows are among them."""
    question = saved.chosen("context-by-key", None)
    sql = question.sql.replace("{since:DateTime}", SINCE)
    rows = cluster.eventual_rows(
        f"SELECT * FROM ({sql}) WHERE key = '{name}'",
        lambda rows: {*awaited} <= {row["what"] for row in rows},
    )
    return {row["what"]: row for row in rows}


def tokens(row: Row) -> tuple[int, int, int]:
    """Return the tokens spent, of all tools of the key, and of all tools of the gateway."""
    return tuple(int(row[f"{kind}_tokens"]) for kind in ("spent", "classic", "whole"))  # type: ignore[return-value]


def test_each_list_is_counted_with_the_lists_of_its_key_and_of_the_gateway(
    cluster: Cluster,
) -> None:
    listed: Any = cluster.client(NARROW).request("tools/list").json["result"]
    assert [tool["name"] for tool in listed["tools"]] == ["echo__say"]
    cluster.client(WIDE).request("tools/list", x_toolbus_tools="echo__say")
    cluster.client(CODER).request("tools/list")
    narrow = tokens(rows_of(cluster, "narrow", "lists")["lists"])
    wide = tokens(rows_of(cluster, "wide", "lists")["lists"])
    coder = tokens(rows_of(cluster, "coder", "lists")["lists"])
    assert narrow[0] <= narrow[1] + 50 < narrow[2], "a list of one tool is that tool's definition"
    assert wide[0] < wide[1] == wide[2], "one of its lists was narrowed by the request"
    assert 0 < coder[0] != coder[1] == coder[2] > 0, "it is shown code mode's tools instead"


def test_results_are_counted_as_sent_and_as_returned_by_the_server(cluster: Cluster) -> None:
    cluster.client(NARROW).call("echo__say", {"text": TEXT})
    rows = rows_of(cluster, "narrow", "arguments", "results")
    spent, classic, _ = tokens(rows["results"])
    assert 1000 < spent == classic < 1100
    assert 1000 < tokens(rows["arguments"])[0] < 1100
    select = {"_meta": {"dev.toolbus/select": "b"}}
    text = json.dumps({"a": TEXT, "b": 1})
    params = {"name": "echo__say", "arguments": {"text": text}, **select}
    assert len(cluster.client(WIDE).request("tools/call", params).body) < 1000
    spent, classic, _ = tokens(rows_of(cluster, "wide", "results")["results"])
    assert spent < 100
    assert 1000 < classic < 1100


def test_a_programs_calls_are_not_counted_as_sent_to_its_model(cluster: Cluster) -> None:
    source = f"len(str(echo.say(text='{TEXT}')))"
    cluster.client(CODER).call(EXECUTE, {"code": source})
    rows = rows_of(cluster, "coder", "arguments", "results", "code mode")
    spent, classic, _ = tokens(rows["results"])
    assert spent == 0
    assert 1000 < classic < 1100
    assert tokens(rows["arguments"])[0] == 0
    assert tokens(rows["code mode"])[0] > 0
