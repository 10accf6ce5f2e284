"""Servers that are not MCP, through the whole gateway: an HTTP API and Python functions."""

import json
from collections.abc import Iterator

import pytest

from harness.client import Client
from harness.launched import Launched
from harness.rest import RestServer
from harness.waiting import until_now

KEY = "tbk_bot_e2e-secret-for-kinds"
TOKEN = "api-token-of-the-e2e-tests"
PETS = {"pets__listPets", "pets__getPet", "pets__fail", "pets__createPet"}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """The API."""
    server = RestServer(tmp_path_factory.mktemp("rest"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def launched(rest: RestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """The gateway over the API and a function."""
    cluster = Launched(tmp_path_factory.mktemp("kinds"), PETS_TOKEN=TOKEN)
    (cluster.directory / "shop.py").write_text(
        'def add(a: int, b: int) -> int:\n    """Add."""\n    return a + b\n'
    )
    pets = {
        "openapi": rest.document,
        "credentials": {"token": "${env:PETS_TOKEN}"},
        "operations": {"exclude": ["/login"]},
    }
    try:
        cluster.configure(
            {
                "servers": {
                    "pets": pets,
                    "calc": {"python": "shop:add", "cwd": str(cluster.directory)},
                },
                "keys": {"bot": {"secret": KEY, "tools": [*sorted(PETS), "calc__*"]}},
                "prices": {"pets__*": 0.01},
            }
        )
        cluster.start()
        wanted = PETS | {"calc__add"}
        until_now(lambda: set(cluster.client(KEY).tools()) == wanted, "the tools", 60)
        yield cluster
    finally:
        cluster.stop()


def test_a_granted_operation_is_called_with_the_operators_credential(
    launched: Launched, rest: RestServer
) -> None:
    rest.forget()
    answer = launched.client(KEY).call("pets__listPets", {"limit": 2, "tags": ["a", "b"]})
    assert json.loads(answer.text) == [{"id": 1, "name": "Rex"}]
    (seen,) = rest.seen()
    assert seen["query"] == "limit=2&tags=a&tags=b"
    assert seen["headers"]["authorization"] == f"Bearer {TOKEN}"
    assert KEY not in json.dumps(seen)


def test_an_error_of_the_api_is_an_error_of_the_tool_without_the_credential(
    launched: Launched,
) -> None:
    result = launched.client(KEY).call("pets__fail", {"status": 409, "text": "bad"}).json["result"]
    assert result["isError"] is True
    assert result["content"][0]["text"] == "HTTP 409 Conflict: bad Bearer (secret)"


def test_an_operation_that_is_not_granted_or_not_wanted_is_unknown(
    launched: Launched, rest: RestServer
) -> None:
    rest.forget()
    client = launched.client(KEY)
    assert client.call("pets__deletePet", {"petId": "1"}).code == "unknown_tool"
    assert client.call("pets__logIn", {"body": {}}).code == "unknown_tool"
    error = client.call("pets__getPet", {"petId": "../x"}).error
    assert (error["code"], "lead to another path" in error["message"]) == (-32602, True)
    assert rest.seen() == []


def test_a_function_is_called_in_its_own_process(launched: Launched) -> None:
    assert launched.client(KEY).call("calc__add", {"a": 2, "b": 3}).text == "5"


def test_status_tells_the_kinds_and_what_was_left_out(launched: Launched) -> None:
    told = json.loads(launched.toolbus("status", "--json").stdout)["servers"]
    servers = {each["name"]: each for each in told}
    assert (servers["pets"]["kind"], servers["calc"]["kind"]) == ("openapi", "python")
    assert "another document" in servers["pets"]["dropped"]["broken"]
    shown = launched.toolbus("get", "servers", "pets").stdout
    assert "${env:PETS_TOKEN}" in shown


def test_a_program_calls_both_kinds(launched: Launched) -> None:
    client = launched.client(KEY)
    coder = Client(f"{client.endpoint}?mode=code", KEY)
    code = 'result = [pets.getPet(petId="Rex")["name"], calc.add(a=1, b=1)]'
    answer = until_now(
        lambda: (told := coder.call("executeToolCode", {"code": code})).code == "" and told,
        "a program's answer",
    )
    assert '["Rex","2"]' in answer.text.replace(" ", "")
