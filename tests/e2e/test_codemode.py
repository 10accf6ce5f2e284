"""Code mode over HTTP: the listed tools, programs, and their cost."""

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Cluster, Upstream
from harness.gateway.family_gateway import stateless
from harness.waits import until_blocking
from toolbus_common.config import Configuration
from toolbus_common.contracts import IDEMPOTENCY, REPLAYED

ROOT, CODER, NARROW, NEVER = (
    f"tbk_{name}_a-secret-of-code-mode" for name in ("root", "coder", "narrow", "never")
)
OWN = {"listToolFiles", "readToolFile", "getToolDocs", "executeToolCode", "searchTools"}


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with two servers, the codemode service, and keys of every mode."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    fused = request.param == "fused"
    with cluster.running(configuration(upstream.url), fused=fused, additional=("codemode",)):
        cluster.until_listed(cluster.client(ROOT), "one__say", "two__say")
        cluster.until_listed(cluster.client(CODER), *OWN)
        yield cluster


def configuration(url: str, **two: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "servers": {"one": {"url": url}, "two": {"url": url, **two}},
            "keys": {
                "root": key(ROOT),
                "coder": key(CODER, code_mode=True),
                "narrow": key(NARROW, "two__say", code_mode=True),
                "never": key(NEVER, code_mode=False),
            },
        }
    )


def at(client: Client, mode: str) -> Client:
    """Return a client of the same key that requests a mode."""
    return Client(f"{client.endpoint}?mode={mode}", client.key)


def tools(client: Client) -> set[str]:
    return set(client.tools())


def text_of(client: Client, tool: str, /, **arguments: Any) -> str:
    return client.call(tool, arguments).text


def test_a_key_in_code_mode_lists_only_the_tools_of_code_mode(cluster: Cluster) -> None:
    assert tools(cluster.client(CODER)) == OWN
    assert "one__say" in tools(cluster.client(ROOT))
    assert not OWN & tools(cluster.client(ROOT))


def test_a_request_selects_a_mode_unless_its_key_forbids_it(cluster: Cluster) -> None:
    assert tools(at(cluster.client(ROOT), "code")) == OWN
    assert tools(at(cluster.client(ROOT), "search")) == {"searchTools", "getToolDocs"}
    assert "one__say" in tools(at(cluster.client(CODER), "tools"))
    never = cluster.client(NEVER)
    assert not OWN & tools(at(never, "code"))
    assert never.call("listToolFiles").code == "unknown_tool"


def test_a_server_in_code_mode_hides_its_tools_from_the_list(
    cluster: Cluster, upstream: Upstream
) -> None:
    try:
        cluster.declare(configuration(upstream.url, code_mode=True))
        until_blocking(lambda: tools(cluster.client(ROOT)) > OWN, "the mixed list")
        names = tools(cluster.client(ROOT)) - OWN
        assert {name.partition("__")[0] for name in names} == {"one"}
    finally:
        cluster.declare(configuration(upstream.url))
        until_blocking(lambda: not OWN & tools(cluster.client(ROOT)), "the plain list")


def test_the_stub_files_describe_exactly_the_granted_tools(cluster: Cluster) -> None:
    coder, narrow = cluster.client(CODER), cluster.client(NARROW)
    assert text_of(coder, "listToolFiles").splitlines()[0].startswith("one.pyi  # ")
    assert text_of(narrow, "listToolFiles").splitlines() == [
        "two.pyi  # 1 tool",
        "# in a program: result = two.say()",
    ]
    stubs = text_of(coder, "readToolFile", fileName="one.pyi")
    assert "say(text: str = None)" in stubs
    assert "one.pyi" in text_of(narrow, "readToolFile", fileName="one.pyi")
    assert "say" in text_of(narrow, "getToolDocs", server="two", tool="say")
    assert "There is no tool one.say" in text_of(narrow, "getToolDocs", server="one", tool="say")
    assert "two.say(" in text_of(narrow, "searchTools", query="say")
    assert "one.say(" not in text_of(narrow, "searchTools", query="say")


def test_an_unknown_file_is_a_tool_error_with_the_alternatives(cluster: Cluster) -> None:
    answer = cluster.client(CODER).call("readToolFile", {"fileName": "nothing.pyi"})
    assert answer.json["result"]["isError"] is True
    assert "the servers are one, two" in answer.text


def test_reading_a_file_is_recorded_like_any_call(cluster: Cluster) -> None:
    trace = token_hex(16)
    cluster.client(CODER).call("listToolFiles", {}, trace)
    events = cluster.eventual_events(f"trace_id = '{trace}'", "call.completed")
    completed = events["call.completed"]
    assert (completed["server"], completed["key"]) == ("toolbus", "coder")


def test_a_request_with_fewer_servers_reads_fewer_files(cluster: Cluster) -> None:
    params = {"name": "listToolFiles", "arguments": {}}
    answer = cluster.client(CODER).request("tools/call", params, x_toolbus_servers="two")
    files = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert [line.partition(".")[0] for line in files] == ["two"]
    assert "one." not in answer.text


# -- programs --------------------------------------------------------------------------------


def run(client: Client, code: str, trace: str = "", **more: Any) -> Any:
    """Run a program and return the answer."""
    return client.call("executeToolCode", {"code": code, **more}, trace)


def test_a_program_calls_tools_and_only_its_result_is_returned(cluster: Cluster) -> None:
    code = (
        "texts = parallel([call(one.say, text=str(n)) for n in range(3)])\n"
        'result = "-".join([two.say(text=each) for each in texts])'
    )
    answer = run(cluster.client(CODER), code)
    assert answer.text == "0-1-2"
    assert answer.json["result"].get("isError") is not True


def test_a_program_in_python_awaits_its_calls(cluster: Cluster) -> None:
    code = (
        "import asyncio\n"
        'texts = await asyncio.gather(one.say(text="a"), two.say(text="b"))\n'
        'result = "".join(texts)\nresult'
    )
    assert run(cluster.client(CODER), code, language="python").text == "ab"


def test_a_program_cannot_call_a_tool_its_key_may_not(cluster: Cluster) -> None:
    answer = run(cluster.client(NARROW), 'result = one.say(text="x")')
    assert answer.json["result"]["isError"] is True
    assert "one" in answer.text
    assert run(cluster.client(NARROW), 'result = two.say(text="x")').text == "x"


def test_a_program_catches_a_failing_call(cluster: Cluster) -> None:
    code = "got = try_call(one.complain)\nresult = [got.ok, got.error.code]"
    assert run(cluster.client(CODER), code).text == '[false,"tool_error"]'


def test_every_nested_call_is_recorded_under_its_run(cluster: Cluster) -> None:
    trace = token_hex(16)
    run(cluster.client(CODER), 'result = [one.say(text="q"), two.say(text="q")]', trace)
    sql = (
        "SELECT outer.call_id AS run, count() AS calls FROM events AS inner "
        "INNER JOIN events AS outer ON inner.parent_id = outer.call_id "
        "WHERE inner.event = 'call.completed' AND outer.event = 'call.completed' "
        "AND outer.tool = 'executeToolCode' "
        f"AND outer.trace_id = '{trace}' GROUP BY run HAVING calls = 2"
    )
    assert cluster.eventual_rows(sql)


def test_a_program_error_names_its_line(cluster: Cluster) -> None:
    answer = run(cluster.client(CODER), "x = 1\nresult = one.sai(text=1)")
    assert answer.json["result"]["isError"] is True
    assert answer.text.startswith("unknown_tool (line 2)")
    assert "one.say" in answer.text


def test_a_program_whose_caller_disconnects_cancels_its_calls(
    cluster: Cluster, upstream: Upstream
) -> None:
    name = token_hex(8)
    code = f'result = one.wait(id="{name}", seconds=20)'
    params = {"name": "executeToolCode", "arguments": {"code": code}}
    body, headers = stateless("tools/call", params)
    with cluster.client(CODER).leaving(body, **headers):
        until_blocking(
            lambda: any(call.get("id") == name for call in upstream.arrived()), "the call"
        )
    sql = (
        "SELECT tool FROM events WHERE event = 'call.failed' AND code = 'cancelled' "
        "AND tool IN ('wait', 'executeToolCode')"
    )
    both = {"executeToolCode", "wait"}
    cluster.eventual_rows(sql, lambda rows: {row["tool"] for row in rows} == both)


# -- context cost ----------------------------------------------------------------------------------


def test_the_tokens_of_code_mode_are_reported_with_those_of_all_definitions(
    cluster: Cluster,
) -> None:
    text_of(cluster.client(NARROW), "listToolFiles")
    spent = (  # of all days: midnight may have passed since this key's first call
        "SELECT server, sum(spent_tokens) AS spent_tokens, sum(classic_tokens) AS classic_tokens "
        "FROM context_by_day WHERE key = 'narrow' GROUP BY server ORDER BY server"
    )
    own, two = cluster.eventual_rows(spent, lambda rows: len(rows) == 2)
    assert (two["server"], own["server"]) == ("two", "toolbus")
    assert two["spent_tokens"] == own["classic_tokens"] == 0
    assert two["classic_tokens"] > 0
    assert own["spent_tokens"] > 0


def test_the_tokens_of_definitions_are_reported_by_server_and_tool(cluster: Cluster) -> None:
    text_of(cluster.client(CODER), "listToolFiles")
    expected = {(server, tool) for server in ("one", "two") for tool in ("say", "complain")}
    rows = cluster.eventual_rows(
        "SELECT * FROM context_definitions",
        lambda rows: {(row["server"], row["tool"]) for row in rows} >= expected,
    )
    assert {row["server"] for row in rows} == {"one", "two"}
    assert all(row["tokens"] > 0 for row in rows)
    assert {row["counted_by"] for row in rows} == {"o200k_base"}


def test_a_run_is_counted_with_its_program_and_its_answer(cluster: Cluster) -> None:
    run(cluster.client(CODER), f'result = "{"word " * 200}"')
    (row,) = cluster.eventual_rows(
        "SELECT JSONExtractInt(detail, 'request_tokens') AS request, "
        "JSONExtractInt(detail, 'answer_tokens') AS answer, "
        "JSONExtractString(detail, 'engine') AS engine FROM events "
        "WHERE event = 'context.spent' AND tool = 'executeToolCode' "
        "AND request > 190 LIMIT 1"
    )
    assert row["request"] > row["answer"] > 190
    assert row["engine"] == "starlark"


def test_a_run_with_an_idempotency_key_runs_once(cluster: Cluster, upstream: Upstream) -> None:
    name = f"run-{cluster.fused}"
    params = {
        "name": "executeToolCode",
        "arguments": {"code": f"result = one.count(id='{name}')"},
        "_meta": {IDEMPOTENCY: name},
    }
    client = cluster.client(CODER)
    first, again = (client.request("tools/call", params) for _ in range(2))
    assert first.text == again.text == name
    assert again.json["result"]["_meta"] == {REPLAYED: True}
    assert arrived(upstream, name) == 1
    other = {**params, "arguments": {"code": "result = 1"}}
    assert client.request("tools/call", other).code == "idempotency_conflict"


@pytest.mark.parametrize("language", ["starlark", "python"])
def test_a_programs_call_with_an_idempotency_key_runs_once(
    cluster: Cluster, upstream: Upstream, language: str
) -> None:
    name = f"inner-{language}-{cluster.fused}"
    call = f"one.count(id='{name}', toolbus_idempotency_key='{name}')"
    code = f"result = {'await ' if language == 'python' else ''}{call}"
    for _ in range(2):
        assert (
            text_of(cluster.client(CODER), "executeToolCode", code=code, language=language) == name
        )
    assert arrived(upstream, name) == 1


def arrived(upstream: Upstream, name: str) -> int:
    return sum(call.get("id") == name for call in upstream.arrived())
