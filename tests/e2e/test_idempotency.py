"""Calls with an idempotency key over HTTP: both families, every replica, killed services."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urljoin, urlsplit

from harness.clients.mcp_client import JSON, Answer, Client
from harness.gateway.family_gateway import OTHER, FamilyGateway, calling, start_session, stateless
from harness.waits import until_blocking
from toolbus_common.contracts import IDEMPOTENCY, REPLAYED

REPEATS = 50
UNTIL_UNKNOWN = 60.0  # the deadline of a call and the grace after it are thirteen seconds


def call_once(client: Client, key: str, tool: str = "echo__wait", **arguments: Any) -> Answer:
    """Make a call of the handshake family, without a session."""
    meta = {IDEMPOTENCY: key}
    params = {"name": tool, "arguments": {"seconds": 0, **arguments}, "_meta": meta}
    return client.request("tools/call", params)


def call_stateless(client: Client, key: str, **arguments: Any) -> Answer:
    """Make the same call in the stateless family."""
    body, headers = keyed(key, **arguments)
    return client.post(body, **headers)


def keyed(key: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    params = {"name": "echo__wait", "arguments": {"seconds": 0, **arguments}}
    body, headers = stateless("tools/call", params)
    body["params"]["_meta"][IDEMPOTENCY] = key
    return body, headers


def was_replayed(answer: Answer) -> bool:
    return answer.json["result"].get("_meta", {}).get(REPLAYED) is True


def of_the_first(answer: Answer) -> bool:
    """Return whether an error is the first call's, and not that of a lost repetition.

    The bus may route a repetition to a replica that was killed a moment ago.
    """
    return "firstCallId" in answer.error["data"]


def arrived(deployment: FamilyGateway, name: str) -> int:
    return sum(call.get("id") == name for call in deployment.echo.arrived())


def test_only_one_of_fifty_repetitions_at_every_replica_reaches_the_server(
    deployment: FamilyGateway,
) -> None:
    def repeated(number: int) -> Answer:
        request = call_stateless if number % 2 else call_once
        client = deployment.client(replica=number // 2 % 2)

        def outcome() -> Answer | None:
            answer = request(client, "fifty", id="fifty", seconds=0.5)
            return None if "error" in answer.json and answer.error["data"]["retryable"] else answer

        return until_blocking(outcome, "the outcome", 60)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(repeated, range(REPEATS)))
    assert [answer.json for answer in answers if "result" not in answer.json] == []
    assert {answer.text for answer in answers} == {"fifty"}
    assert sum(not was_replayed(answer) for answer in answers) == 1
    assert arrived(deployment, "fifty") == 1
    for number, answer in enumerate(answers):
        assert ("resultType" in answer.json["result"]) is bool(number % 2), "its own family's form"


def test_changed_arguments_are_rejected_and_each_caller_has_its_own_keys(
    deployment: FamilyGateway,
) -> None:
    client = deployment.client()
    assert call_once(client, "mine", id="mine").text == "mine"
    assert call_once(client, "mine", id="mine, changed").code == "idempotency_conflict"
    assert call_stateless(client, "mine", id="mine, changed").code == "idempotency_conflict"
    other = call_once(deployment.client(OTHER), "mine", id="theirs")
    assert (other.text, was_replayed(other)) == ("theirs", False)
    assert call_once(client, "k" * 256, id="long").code == "invalid"


def test_a_session_gets_the_outcome_of_a_call_made_without_one(deployment: FamilyGateway) -> None:
    client = deployment.client(replica=1)
    assert call_stateless(deployment.client(), "session", id="session").text == "session"
    sid = start_session(client)
    body = calling("echo__wait", 1, id="session", seconds=0)
    body["params"]["_meta"] = {IDEMPOTENCY: "session"}
    again = client.post(body, Mcp_Session_Id=sid)
    assert was_replayed(again)
    assert arrived(deployment, "session") == 1


def test_a_servers_own_error_is_replayed_unchanged(deployment: FamilyGateway) -> None:
    answers = [call_once(deployment.client(), "fault", "echo__fault", id="fault") for _ in range(2)]
    assert [answer.error["code"] for answer in answers] == [-32050, -32050]
    assert arrived(deployment, "fault") == 1


def test_explicit_execution_takes_the_key_as_a_header(deployment: FamilyGateway) -> None:
    function = {"name": "echo__wait", "arguments": json.dumps({"id": "header", "seconds": 0})}
    suggestion = {"id": "call_1", "function": function}

    def execute(body: Any) -> Answer:
        endpoint = urljoin(deployment.client().endpoint, "/v1/mcp/tools/execute")
        return Client(endpoint, deployment.client().key).post(body, Idempotency_Key="header")

    assert [execute(suggestion).json["content"] for _ in range(2)] == ["header", "header"]
    assert arrived(deployment, "header") == 1
    several = {"tool_calls": [suggestion, {**suggestion, "id": "call_2"}]}
    for _ in range(2):
        parsed = execute(several).json["messages"]
        assert [message["content"] for message in parsed] == ["header", "header"]
    assert arrived(deployment, "header") == 3, "each of several has a key of its own"


def test_a_repetition_is_an_event(deployment: FamilyGateway) -> None:
    client = deployment.client()
    call_once(client, "event", id="event")
    call_once(client, "event", id="event")
    sql = (
        "SELECT outer.call_id AS first FROM events AS outer JOIN events AS again "
        "ON JSONExtractString(again.detail, 'first') = outer.call_id "
        "WHERE again.event = 'call.replayed' AND outer.event = 'call.completed' "
        "AND again.key = 'root'"
    )
    assert deployment.cluster.eventual_rows(sql)


def test_a_call_survives_its_client_and_every_service_but_the_executor(
    deployment: FamilyGateway,
) -> None:
    with sent(deployment.client(), "left", id="left", seconds=4):
        until_blocking(lambda: arrived(deployment, "left"), "the call reaches the server")
        # Where the services are fused, only the client disconnects.
        for service in ("ingress", "policy"):
            for process in deployment.cluster.processes.get(service, [])[:1]:
                process.kill()

    def outcome() -> Answer | None:
        answer = call_stateless(deployment.client(replica=1), "left", id="left", seconds=4)
        lost = answer.code == "outcome_unknown" and not of_the_first(answer)
        return None if lost or answer.code == "call_in_progress" else answer

    assert was_replayed(until_blocking(outcome, "the outcome"))
    assert arrived(deployment, "left") == 1


@contextmanager
def sent(client: Client, key: str, **arguments: Any) -> Iterator[None]:
    """Send a call whose client disconnects without an answer when this context ends."""
    body, headers = keyed(key, **arguments)
    target = urlsplit(client.endpoint)
    connection = HTTPConnection(target.hostname or "", target.port)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {**JSON, **fields, "Authorization": f"Bearer {client.key}"}
    connection.request("POST", target.path, json.dumps(body), fields)
    try:
        yield
    finally:
        connection.close()


def test_a_call_whose_executor_was_killed_is_unknown_and_not_repeated(
    deployment: FamilyGateway,
) -> None:
    cluster = deployment.cluster
    name = "ingress+policy+executor" if cluster.fused else "executor"
    replica = 0 if cluster.fused else 1  # the other ingress is gone
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(
            call_once, deployment.client(replica=replica), "dead", id="dead", seconds=7
        )
        until_blocking(lambda: arrived(deployment, "dead"), "the call reaches the server")
        for process in cluster.processes[name]:
            process.kill()
        if cluster.fused:
            cluster.forget_port(0)
        cluster.run(name).wait_ready()
        assert lost.exception() is not None or lost.result().code == "outcome_unknown"
    client = deployment.client(replica=replica)

    def outcome() -> Answer | None:
        answer = call_once(client, "dead", id="dead", seconds=7)
        return None if answer.code in ("call_in_progress", "unknown_tool") else answer

    unknown = until_blocking(outcome, "it is known to be unknown", UNTIL_UNKNOWN)
    assert unknown.code == "outcome_unknown"
    assert "new key" in unknown.error["message"]
    assert arrived(deployment, "dead") == 1
    alive = until_blocking(
        lambda: _ended(call_once(client, "alive", id="alive")), "the server is back", 60
    )
    assert alive.text == "alive"


def _ended(answer: Answer) -> Answer | None:
    return None if answer.code else answer
