"""Limits of programs as clients see them: budgets, recorded runs, large results, errors."""

import json
from collections.abc import Iterator

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from toolbus_common.config import Configuration

SPENDER, ASKER, BROKE, HASTY, LOOPER, FULL = (
    f"tbk_{name}_a-secret-of-programs"
    for name in ("spender", "asker", "broke", "hasty", "looper", "full")
)
CAP = {"usd": 0.05, "calls": 30}


@pytest.fixture(scope="module")
def cluster(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a gateway with prices, and a key for each limit."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    keys = {
        "spender": key(SPENDER, code_mode={"shown": True, **CAP}),
        "asker": key(ASKER, approve=["one__say"]),
        "broke": key(BROKE, budget={"usd": 0.015, "per": "month"}),
        "hasty": key(HASTY, rate={"calls": 2, "per": "day"}),
        "looper": key(LOOPER, loop={"calls": 1, "seconds": 600}),
        "full": key(FULL, content="full"),
    }
    prices = {"one__count": 0.01, "one__say": {"call": 0.001, "maximum": 0.02, "kilobyte": 0.0001}}
    server = {"url": upstream.url, "results": {"limit": 65536}}
    declared = {"servers": {"one": server}, "keys": keys, "prices": prices}
    with cluster.running(
        Configuration.model_validate(declared), fused=True, additional=("codemode",)
    ):
        cluster.until_listed(cluster.client(FULL), "one__say")
        cluster.until_listed(cluster.client(SPENDER), "searchTools")
        yield cluster


def run(client: Client, code: str, language: str = "starlark", **headers: str) -> Answer:
    """Run a program and return the answer."""
    arguments = {"code": code, "language": language}
    params = {"name": "executeToolCode", "arguments": arguments}
    return client.request("tools/call", params, **headers)


def failed(answer: Answer) -> bool:
    return bool(answer.json["result"].get("isError"))


def arrived(upstream: Upstream, marker: str) -> int:
    return sum(str(call.get("id", "")).startswith(marker) for call in upstream.arrived())


# -- the cost of a program -------------------------------------------------------------------------

AT_ONCE = {
    "starlark": (
        "got = parallel([call(one.count, id='{0}' + str(n)) for n in range(20)], catch=True)\n"
        "result = [each.error.code if each.error else '' for each in got]"
    ),
    "python": (
        "import asyncio, json\n"
        "async def one_by_one(n):\n"
        "    try:\n"
        "        await one.count(id='{0}' + str(n))\n"
        "        return ''\n"
        "    except RuntimeError as error:\n"
        "        return str(error).split(':')[0]\n"
        "result = await asyncio.gather(*[one_by_one(n) for n in range(20)])\n"
        "result"
    ),
}


@pytest.mark.parametrize("language", ["starlark", "python"])
def test_concurrent_calls_cost_no_more_than_the_limit(
    cluster: Cluster, upstream: Upstream, language: str
) -> None:
    answer = run(cluster.client(SPENDER), AT_ONCE[language].replace("{0}", language), language)
    assert sorted(json.loads(answer.text)) == [""] * 5 + ["run_budget_exceeded"] * 15
    assert arrived(upstream, language) == 5


def test_a_request_lowers_the_limit_and_cannot_raise_it(
    cluster: Cluster, upstream: Upstream
) -> None:
    spender = cluster.client(SPENDER)
    code = AT_ONCE["starlark"]
    run(spender, code.replace("{0}", "low"), x_toolbus_program="usd=0.02, calls=25")
    run(spender, code.replace("{0}", "high"), x_toolbus_program="usd=7")
    assert (arrived(upstream, "low"), arrived(upstream, "high")) == (2, 5)
    few = run(spender, code.replace("{0}", "few"), x_toolbus_program="calls=3")
    assert few.text.startswith("too_many_calls (line 1): A program can make at most 3 calls.")
    assert "The request allows a program 3 calls." in few.text
    wrong = run(spender, "result = 1", x_toolbus_program="usd=lots")
    assert "Invalid header x-toolbus-program" in wrong.error["message"]


def test_a_call_priced_by_its_result_reserves_its_maximum_and_charges_its_cost(
    cluster: Cluster,
) -> None:
    one_by_one = "result = [one.say(text='x') for _ in range(10)]"
    assert not failed(run(cluster.client(SPENDER), one_by_one))
    at_once = (
        "got = parallel([call(one.say, text='x') for _ in range(10)], catch=True)\n"
        "result = len([each for each in got if each.ok])"
    )
    assert run(cluster.client(SPENDER), at_once).text == "2"


def test_failed_calls_are_charged_and_rejected_calls_are_free(cluster: Cluster) -> None:
    code = (
        "bad = [try_call(one.complain) for _ in range(3)]\n"
        "got = [try_call(one.count, id='c') for _ in range(7)]\n"
        "result = len([each for each in got if each.ok])"
    )
    assert run(cluster.client(SPENDER), code).text == "5"


# -- recorded runs ---------------------------------------------------------------------------------


def test_one_query_returns_a_run_with_its_calls(cluster: Cluster) -> None:
    code = (
        "one.count(id='run-a')\ntry_call(one.complain)\n"
        "for n in range(5):\n    try_call(one.count, id='run-b' + str(n))\nresult = 'done'"
    )
    assert run(cluster.client(SPENDER), code).text == "done"
    (row,) = cluster.eventual_rows(
        "SELECT * FROM runs WHERE key = 'spender' AND lines = 5 AND state = 'completed' "
        "AND length(inner_calls) = 7"
    )
    assert (row["engine"], row["calls"], row["denied"], row["failed"]) == ("starlark", 7, 1, 1)
    assert (row["cost"], row["output_bytes"], row["program"]) == (50_000, 4, "")
    assert len(row["program_digest"]) == 64
    assert row["latency_us"] > 0
    assert row["cpu_us"] > 0
    items = ("tool", "event", "code", "charge")
    calls = [tuple(call[each] for each in items) for call in row["inner_calls"]]
    assert calls[0] == ("one__count", "call.completed", "", 10_000)
    assert sorted(code for _, _, code, _ in calls) == [""] * 6 + ["run_budget_exceeded"]


def test_a_failed_run_records_its_error_its_line_and_its_calls(cluster: Cluster) -> None:
    code = "one.count(id='f')\nx = 1\nresult = one.count(1, 2, 3)"
    assert failed(run(cluster.client(FULL), code))
    (row,) = cluster.eventual_rows(
        "SELECT * FROM runs WHERE key = 'full' AND state = 'failed' AND code = 'wrong_argument' "
        "AND length(inner_calls) = 1"
    )
    assert (row["at_line"], row["calls"], row["cost"], row["failed"]) == (3, 1, 10_000, 0)
    assert row["program"] == code  # this key's content is recorded
    assert "too many arguments" in row["reason"]


def test_a_run_in_python_records_its_processor_time(cluster: Cluster) -> None:
    code = "total = 0\nfor n in range(300000):\n    total += n\n\n\n\n\n\ntotal"
    run(cluster.client(FULL), code, "python")
    (row,) = cluster.eventual_rows(
        "SELECT * FROM runs WHERE engine = 'python' AND key = 'full' AND lines = 9 "
        "AND state = 'completed'"
    )
    assert (row["state"], row["calls"]) == ("completed", 0)
    assert row["cpu_us"] > 1000


def test_a_program_stopped_at_its_deadline_records_its_processor_time(cluster: Cluster) -> None:
    late = run(
        cluster.client(SPENDER),
        "for n in range(1000000000):\n    pass",
        x_toolbus_program="seconds=2",
    )
    assert late.text.startswith("time")
    assert "The request allows a program 2 seconds." in late.text
    (row,) = cluster.eventual_rows("SELECT * FROM runs WHERE code = 'time' AND state = 'failed'")
    assert row["cpu_us"] > 0


# -- large results ---------------------------------------------------------------------------------

LARGE = "result = [{'id': n, 'name': 'n' * 40} for n in range(3000)]"


@pytest.mark.parametrize("language", ["starlark", "python"])
def test_a_large_result_is_read_by_a_later_program(cluster: Cluster, language: str) -> None:
    text = run(cluster.client(FULL), LARGE + "\nresult", language).text
    assert "list of 3,000 {id: int, name: str}" in text
    assert len(text) < 1500
    begin, _, rest = text.partition('results.read("')
    handle = rest.partition('"')[0]
    for later in ("starlark", "python"):
        read = f"results.read('{handle}')"
        read = f"(await {read})" if later == "python" else read
        picked = run(cluster.client(FULL), f"result = {read}[2999]['id']\nresult", later)
        assert picked.text == "2999"
    assert begin.startswith("The result has ")
    foreign = run(cluster.client(SPENDER), f"result = results.read('{handle}')")
    assert foreign.text.startswith("tool_failed (line 1): unknown_result: Unknown result")
    caught = run(cluster.client(SPENDER), "result = try_call(results.read, 'r0').error.code")
    assert caught.text == "unknown_result"


# Larger than the limit of its server: the program gets the beginning, and a link.
LISTED = """
rows = ", ".join(['{"id": ' + str(n) + ', "name": "' + "ä" * 40 + '"}' for n in range(20000)])
kept = {await}one.say(text="[" + rows + "]")
result = """
READS = {
    "({await}results.read(kept))[19999]['id']": "19999",
    "{await}results.read(kept, select='[3].id')": "3",
    "{await}results.read(kept, offset=1, length=9)": '{"id": 0,',
    "len({await}results.read(kept[1]['uri']))": "20000",
    "{await}results.read(kept, length=0)": "length must be a number of bytes",
    "{await}results.read('toolbus-result:one/say/x')": "is not the URI of a large result",
}


@pytest.mark.parametrize("language", ["starlark", "python"])
@pytest.mark.parametrize("read", READS)
def test_a_large_result_of_a_tool_is_read_by_a_program(
    cluster: Cluster, language: str, read: str
) -> None:
    source = f"{LISTED}{read}\nresult".replace("{await}", "await " * (language == "python"))
    assert READS[read] in run(cluster.client(FULL), source, language).text


def test_a_program_cannot_read_a_large_result_of_another_key(cluster: Cluster) -> None:
    source = f"{LISTED}kept[1]['uri']".replace("{await}", "")
    uri = run(cluster.client(FULL), source).text
    assert uri.startswith("toolbus-result:one/say/")
    foreign = run(cluster.client(SPENDER), f"result = results.read({uri!r})")
    assert failed(foreign)
    assert "unknown" in foreign.text


# -- errors ----------------------------------------------------------------------------------------

REFUSED = [
    (SPENDER, "[one.count(id='z') for _ in range(6)]", "run_budget_exceeded",
     "key:spender limits the calls of one program to $0.05"),
    (BROKE, "[one.count(id='z') for _ in range(2)]", "budget_exceeded", "key:broke' has spent"),
    (HASTY, "[one.say(text='z') for _ in range(2)]", "rate_exceeded", "Make fewer calls"),
    (LOOPER, "[one.say(text='z') for _ in range(2)]", "loop_detected", "change the arguments"),
    (ASKER, "one.say(text='z')", "approval_required", "toolbus approve "),
    (FULL, "one.complain()", "tool_error", "complain"),
    (FULL, "one.fault()", "upstream_refused", "The tool is out of order"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("secret", "code", "name", "message"), REFUSED, ids=[r[2] for r in REFUSED]
)
def test_a_rejected_call_reports_the_reason_and_the_fix_to_its_program(
    cluster: Cluster, secret: str, code: str, name: str, message: str
) -> None:
    client = Client(f"{cluster.client(secret).endpoint}?mode=code", secret)
    answer = run(client, f"result = {code}")
    assert failed(answer)
    assert answer.text.startswith(f"tool_failed (line 1): {name}: ")
    assert message in answer.text
    advice = "call another tool" if name == "tool_error" else "try_call(server.tool, name=value)"
    assert advice in answer.text


def test_a_long_error_reaches_a_program_in_python_completely(cluster: Cluster) -> None:
    client = Client(f"{cluster.client(ASKER).endpoint}?mode=code", ASKER)
    answer = run(client, "await one.say(text='zz')", "python")
    assert answer.text.startswith("tool_failed (line 1): approval_required: 'one__say' needs")
    assert "send a program that makes only this call and the following ones." in answer.text


MISTAKEN = [
    ("one.cuont(id='x')", "unknown_tool", "Did you mean one.count(id=…)"),
    ("on.count(id='x')", "unknown_tool", "one.count(id='x')"),
    ("shop.count(id='x')", "unknown_tool", "one.count(id='x')"),
    ("shop.none(id='x')", "unknown_name", "Available are the servers one"),
    ("one.count(ident='x')", "wrong_argument", "Usage: one.count(id=…)"),
    ("one.count('a', 'b')", "wrong_argument", "Usage: one.count(id=…)"),
]


@pytest.mark.parametrize("language", ["starlark", "python"])
@pytest.mark.parametrize(("code", "name", "message"), MISTAKEN, ids=[m[0] for m in MISTAKEN])
def test_a_mistake_in_a_program_is_reported_with_a_suggestion(
    cluster: Cluster, code: str, name: str, message: str, language: str
) -> None:
    wait = "await " if language == "python" else ""
    answer = run(cluster.client(FULL), f"x = 1\nresult = {wait}{code}", language)
    assert answer.text.startswith(f"{name} (line 2): ")
    assert message in answer.text


# -- search without programs -----------------------------------------------------------------------


def test_a_search_without_programs_returns_the_names_to_call(cluster: Cluster) -> None:
    searching = Client(f"{cluster.client(FULL).endpoint}?mode=search", FULL)
    found = searching.call("searchTools", {"query": "say"}).text
    assert found.startswith("one__say(text: str = None)")
    docs = searching.call("getToolDocs", {"server": "one", "tool": "one__say"}).text
    assert "one__say {}" in docs
    assert searching.call("one__say", {"text": "found"}).text == "found"
    coding = Client(f"{cluster.client(FULL).endpoint}?mode=code", FULL)
    assert coding.call("searchTools", {"query": "say"}).text.startswith("one.say(")
