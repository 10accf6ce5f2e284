"""Tools of unusual names and large definitions, called with arguments that do not match."""

import json
import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from harness.clients.mcp_client import Answer, Client
from harness.gateway.launched_gateway import Launched
from harness.upstreams import scripted_server
from toolbus_common.access.tool_names import shortened

KEY = "tbk_bot_e2e-secret-for-odd-names"
STRICT_KEY = "tbk_strict_e2e-secret-for-odd-names"
CODER_KEY = "tbk_coder_e2e-secret-for-odd-names"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "path": {"type": "string"}},
    "additionalProperties": False,
}
NAMES = (
    "create issue", "files/read", "ns:get", "検索", "поиск", "a.b", "a b.c", "x" * 100, "get[0]",
    "guarded/count", "strict count", "large", "plain",
)  # fmt: skip
LARGE = "d" * 192_000
RULE = """
forbid(principal, action == Action::"tools/call", resource == Tool::"odd__guarded/count")
when { context.arguments has path && context.arguments.path == "/etc" };
"""


def definition(name: str) -> dict[str, Any]:
    """Return a tool or a prompt of this name."""
    described = {"description": LARGE} if name == "large" else {}
    return {"name": name, "inputSchema": SCHEMA, **described}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a server of unusual names, with a price, a rule and a setting for some of them."""
    prompts = [{"name": name} for name in NAMES]
    results: dict[str, Any] = {"ask me": {"messages": []}}
    lists = {
        "tools": [definition(name) for name in NAMES],
        "prompts": [*prompts, {"name": "ask me"}],
    }
    cluster = Launched(tmp_path_factory.mktemp("odd-names"))
    with scripted_server.serving({"lists": lists, "results": results}) as url:
        servers = {
            "odd": {"url": url, "tools": {"strict count": {"validation": "strict"}}},
            "small": {"url": url, "list_limit": 100_000},
        }
        keys = {
            "bot": {"secret": KEY, "tools": ["odd__*", "small__*"], "deny": ["odd__get[0]"]},
            "strict": {"secret": STRICT_KEY, "tools": ["*"], "validation": "strict"},
            "coder": {
                "secret": CODER_KEY,
                "tools": ["odd__*"],
                "code_mode": True,
                "budgets": [{"calls": 2, "per": "month", "tools": ["odd__create issue"]}],
            },
        }
        rules = {"no-etc": {"cedar": RULE, "reason": "Not for agents."}}
        prices = {"odd__create issue": 0.25}
        with cluster.running({"servers": servers, "keys": keys, "rules": rules, "prices": prices}):
            cluster.until_listed(cluster.client(KEY), "odd__plain", "small__plain")
            yield cluster


def refused(answer: Answer) -> str:
    """Return the reason arguments were rejected, or an empty text."""
    result = answer.json["result"]
    return str(result["content"][0]["text"]) if result.get("isError") else ""


def test_every_tool_has_a_safe_name_at_the_shared_endpoint_and_its_own_at_its_server(
    launched: Launched,
) -> None:
    client = launched.client(KEY)
    listed = [name for name in client.tools() if name.startswith("odd__")]
    names = [name for name in NAMES if name != "get[0]"]
    assert set(listed) == {shortened(f"odd__{name}") for name in names}
    assert len(listed) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in listed)
    own = Client(f"{client.endpoint}/odd", KEY)
    assert set(own.tools()) == set(names)
    for name in names:
        for request, answer in (
            ("its safe name", client.call(shortened(f"odd__{name}"))),
            ("its whole name", client.call(f"odd__{name}")),
            ("its own name", own.call(name)),
        ):
            assert json.loads(answer.text) == [name, {}], (name, request)


def test_a_prompt_of_any_name_is_returned_by_its_safe_name(launched: Launched) -> None:
    client = launched.client(KEY)
    got = client.request("prompts/get", {"name": shortened("odd__ask me"), "arguments": {}})
    assert got.json["result"]["messages"] == []


def test_grants_prices_and_events_use_the_servers_own_name(launched: Launched) -> None:
    client = launched.client(KEY)
    assert client.call(shortened("odd__get[0]")).code == "unknown_tool"
    answer = client.call(shortened("odd__create issue"), {"count": 5})
    assert refused(answer) == ""
    rows = launched.eventual_rows(
        "SELECT tool, charge FROM events WHERE event = 'call.completed' AND server = 'odd' "
        "AND tool = 'create issue'"
    )
    assert rows[0]["charge"] == 250_000
    text = launched.toolbus("pins", "list", "--all", "--json").stdout
    assert "odd__create issue" in text


def test_a_program_calls_a_safe_name_and_is_charged_under_the_servers_own(
    launched: Launched,
) -> None:
    coder, run = launched.client(CODER_KEY), token_hex(16)
    code = "result = [odd.create_issue(count=count) for count in (5, 6)]"
    result = coder.call("executeToolCode", {"code": code}, run)
    assert json.loads(result.text) == [["create issue", {"count": count}] for count in (5, 6)]
    rows = launched.eventual_rows(
        "SELECT tool, charge FROM events WHERE event = 'call.completed' AND server = 'odd' "
        f"AND trace_id = '{run}'",
        lambda found: len(found) == 2,
    )
    assert [(row["tool"], row["charge"]) for row in rows] == [("create issue", 250_000)] * 2
    spent = coder.call("executeToolCode", {"code": "result = odd.create_issue(count=7)"})
    assert "budget" in spent.text
    other = coder.call("executeToolCode", {"code": "result = odd.a_b(count=8)"})
    assert "a.b" in other.text, "another tool has its budget left"


def test_a_large_definition_is_listed_and_only_the_whole_list_is_limited(
    launched: Launched,
) -> None:
    own = Client(f"{launched.client(KEY).endpoint}/odd", KEY)
    reply = own.request("tools/list", {}).json["result"]["tools"]
    assert next(each for each in reply if each["name"] == "large")["description"] == LARGE
    quarantined = json.loads(launched.toolbus("tools", "--quarantined", "--json").stdout)
    held = {each["name"]: each.get("hidden", "") for each in quarantined}
    assert "servers.small.list_limit" in held["small__large"]
    assert "odd__large" not in held


def test_a_schema_mismatch_is_left_to_the_server_and_recorded_in_the_event(
    launched: Launched,
) -> None:
    client = launched.client(KEY)
    answer = client.call("odd__plain", {"count": "1", "secret-name": 5})
    assert json.loads(answer.text) == ["plain", {"count": "1", "secret-name": 5}]
    rows = launched.eventual_rows(
        "SELECT detail FROM events WHERE event = 'call.completed' AND tool = 'plain' "
        "AND JSONExtractString(detail, 'misfit') != ''"
    )
    misfit = json.loads(rows[0]["detail"])["misfit"]
    assert "count (type)" in misfit
    assert "secret-name" not in misfit


def test_only_arguments_that_a_rule_reads_must_match_the_schema(launched: Launched) -> None:
    client, name = launched.client(KEY), shortened("odd__guarded/count")
    assert client.call(name, {"path": "/etc"}).code == "rule_denied"
    assert "'path' must be a string" in refused(client.call(name, {"path": ["/etc"]}))
    assert "there is no argument 'Path'" in refused(client.call(name, {"Path": "/etc"}))
    assert refused(client.call(name, {"path": "/tmp", "count": "1"})) == ""


def test_mismatches_are_rejected_where_a_tool_or_a_key_is_strict(launched: Launched) -> None:
    client, strict = launched.client(KEY), launched.client(STRICT_KEY)
    wrong = {"count": "1"}
    assert "'count' must be an integer" in refused(client.call("odd__strict count", wrong))
    assert "'count' must be an integer" in refused(strict.call("odd__plain", wrong))
    assert refused(client.call("odd__plain", wrong)) == ""
