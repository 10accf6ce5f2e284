"""Servers of other kinds through the whole gateway: an HTTP API, functions, and a Toolbus."""

import json
from collections.abc import Iterator

import pytest

from harness.apis.rest_process import RestServer
from harness.clients.mcp_client import Client
from harness.gateway.launched_gateway import Launched
from toolbus_executor.upstreams.gateway_chaining import HOPS, MAX_HOPS

KEY = "tbk_bot_e2e-secret-for-kinds"
FAR_KEY = "tbk_far_e2e-secret-of-who-calls-through"
BETWEEN_KEY = "tbk_between_e2e-secret-between-gateways"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FURTHEST = "self__" * MAX_HOPS + "calc__add"
TOKEN = "api-token-of-the-e2e-tests"
PETS = {"pets__listPets", "pets__getPet", "pets__fail", "pets__createPet"}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """Run the HTTP API."""
    with RestServer(tmp_path_factory.mktemp("rest")).running() as server:
        yield server


@pytest.fixture(scope="module")
def launched(rest: RestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a gateway with the API, a function, and itself as a server."""
    cluster = Launched(tmp_path_factory.mktemp("kinds"), PETS_TOKEN=TOKEN)
    (cluster.directory / "shop.py").write_text(
        'def add(a: int, b: int) -> int:\n    """Add."""\n    return a + b\n'
        'def buy() -> str:\n    """Buy."""\n    return "bought"\n'
    )
    pets = {
        "openapi": rest.document,
        "credentials": {"token": "${env:PETS_TOKEN}"},
        "operations": {"exclude": ["/login"]},
    }
    with cluster.running(
        {
            "servers": {
                "pets": pets,
                "calc": {
                    "python": ["shop:add", "shop:buy"],
                    "cwd": str(cluster.directory),
                    "validation": "strict",
                },
                "self": {
                    "url": f"http://127.0.0.1:{cluster.port}/mcp",
                    "headers": {"Authorization": f"Bearer {BETWEEN_KEY}"},
                    "definitions": "trust",
                },
            },
            "keys": {
                "bot": {"secret": KEY, "tools": [*sorted(PETS), "calc__add"]},
                "far": {"secret": FAR_KEY, "tools": ["self__*"]},
                "between": {
                    "secret": BETWEEN_KEY,
                    "tools": ["calc__*", "self__*"],
                    "budget": {"usd": 0.05, "per": "month"},
                },
            },
            "prices": {"pets__*": 0.01, "calc__add": 0.001, "calc__buy": 0.04},
        }
    ):
        cluster.until_listed(cluster.client(KEY), *PETS, "calc__add")
        cluster.until_listed(cluster.client(FAR_KEY), FURTHEST)  # the longest chain is listed last
        assert set(cluster.client(KEY).tools()) == PETS | {"calc__add"}
        yield cluster


def test_a_granted_operation_is_called_with_the_operators_credential(
    launched: Launched, rest: RestServer
) -> None:
    rest.forget()
    answer = launched.client(KEY).call("pets__listPets", {"limit": 2, "tags": ["a", "b"]})
    assert json.loads(answer.text) == [{"id": 1, "name": "Rex"}]
    (request,) = rest.seen()
    assert request["query"] == "limit=2&tags=a&tags=b"
    assert request["headers"]["authorization"] == f"Bearer {TOKEN}"
    assert KEY not in json.dumps(request)


def test_an_error_of_the_api_is_a_tool_error_without_the_credential(launched: Launched) -> None:
    result = launched.client(KEY).call("pets__fail", {"status": 409, "text": "bad"}).json["result"]
    assert result["isError"] is True
    assert result["content"][0]["text"] == "HTTP 409 Conflict: bad Bearer (secret)"


def test_an_operation_that_is_not_granted_or_excluded_is_unknown(
    launched: Launched, rest: RestServer
) -> None:
    rest.forget()
    client = launched.client(KEY)
    assert client.call("pets__deletePet", {"petId": "1"}).code == "unknown_tool"
    assert client.call("pets__logIn", {"body": {}}).code == "unknown_tool"
    error = client.call("pets__getPet", {"petId": "../x"}).error
    assert (error["code"], "change the path" in error["message"]) == (-32602, True)
    assert rest.seen() == []


def test_a_function_is_called_in_its_own_process(launched: Launched) -> None:
    assert launched.client(KEY).call("calc__add", {"a": 2, "b": 3}).text == "5"


def test_status_shows_the_kinds_and_the_dropped_operations(launched: Launched) -> None:
    body = json.loads(launched.toolbus("status", "--json").stdout)["servers"]
    servers = {each["name"]: each for each in body}
    assert (servers["pets"]["kind"], servers["calc"]["kind"]) == ("openapi", "python")
    assert "another document" in servers["pets"]["dropped"]["broken"]
    text = launched.toolbus("get", "servers", "pets").stdout
    assert "${env:PETS_TOKEN}" in text


def test_a_program_calls_both_kinds(launched: Launched) -> None:
    client = launched.client(KEY)
    coder = Client(f"{client.endpoint}?mode=code", KEY)
    code = 'result = [pets.getPet(petId="Rex")["name"], calc.add(a=1, b=1)]'
    answer = coder.call("executeToolCode", {"code": code})
    assert '["Rex","2"]' in answer.text.replace(" ", "")


def test_invalid_arguments_are_rejected_unsent_with_an_explanation(launched: Launched) -> None:
    result = launched.client(KEY).call("calc__add", {"a": 2}).json["result"]
    assert result["isError"] is True
    assert "'b' is missing: give an integer" in result["content"][0]["text"]
    failed = result["_meta"]["dev.toolbus/failed"]
    assert failed["code"] == "invalid_arguments"
    event = launched.eventual_events(f"call_id = '{failed['callId']}'", "call.failed")[
        "call.failed"
    ]
    assert (event["code"], event["sent"], event["charge"]) == ("invalid_arguments", False, 0)


def test_a_program_gets_the_same_explanation(launched: Launched) -> None:
    coder = Client(f"{launched.client(KEY).endpoint}?mode=code", KEY)
    result = coder.call("executeToolCode", {"code": "result = calc.add(a=1, b=[2])"})
    assert "'b' must be an integer; it is an array" in result.text


def test_a_call_through_another_toolbus_is_one_trace_and_charges_each_key(
    launched: Launched,
) -> None:
    fields = {"name": "self__calc__add", "arguments": {"a": 2, "b": 3}}
    fields["_meta"] = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert launched.client(FAR_KEY).request("tools/call", fields).text == "5"
    rows = launched.eventual_rows(
        "SELECT key, charge FROM events "
        f"WHERE trace_id = '{TRACE}' AND event = 'call.completed' ORDER BY key",
        lambda rows: len(rows) == 2,
    )
    assert rows == [{"key": "between", "charge": 1000}, {"key": "far", "charge": 0}]


def test_the_error_of_another_toolbus_is_returned_unchanged(launched: Launched) -> None:
    client = launched.client(FAR_KEY)
    assert client.call("self__calc__buy").text == "bought"
    error = client.call("self__calc__buy").error
    assert (error["code"], error["data"]["code"]) == (-31003, "budget_exceeded")


def test_a_gateway_that_is_its_own_server_stops_after_the_hop_limit(launched: Launched) -> None:
    client = launched.client(FAR_KEY)
    assert max(name.count("self__") for name in client.tools()) == MAX_HOPS
    arguments = {"a": 1, "b": 1}
    assert client.call(FURTHEST, arguments).text == "2"
    fields = {"name": FURTHEST, "arguments": arguments, "_meta": {HOPS: 1}}
    assert client.request("tools/call", fields).error["data"]["code"] == "loop_detected"
