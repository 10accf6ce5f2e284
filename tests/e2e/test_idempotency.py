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


def once(client: Client, key: str, tool: str = "echo__wait", **arguments: Any) -> Answer:
    """A call of the handshake family, without a session."""
    meta = {IDEMPOTENCY: key}
    params = {"name": tool, "arguments": {"seconds": 0, **arguments}, "_meta": meta}
    return client.request("tools/call", params)


def once_now(client: Client, key: str, **arguments: Any) -> Answer:
    """The same of 2026-07-28."""
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
    """Whether an error is the first call's; else it is the repetition that got lost.

    The bus may hand one to a replica that was killed a moment ago.
    """
    return "firstCallId" in answer.error["data"]


def arrived(place: FamilyGateway, name: str) -> int:
    return sum(call.get("id") == name for call in place.echo.arrived())


def test_of_fifty_repetitions_at_every_replica_in_both_eras_one_reaches_the_server(
    place: FamilyGateway,
) -> None:
    def repeated(number: int) -> Answer:
        request = once_now if number % 2 else once
        client = place.client(replica=number // 2 % 2)

        def told() -> Answer | None:
            answer = request(client, "fifty", id="fifty", seconds=0.5)
            return None if answer.status == 200 and answer.code == "call_under_way" else answer

        return until_blocking(told, "the outcome", 60)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(repeated, range(REPEATS)))
    assert {answer.text for answer in answers} == {"fifty"}
    assert sum(not was_replayed(answer) for answer in answers) == 1
    assert arrived(place, "fifty") == 1
    for number, answer in enumerate(answers):
        assert ("resultType" in answer.json["result"]) is bool(number % 2), "its own family's form"


def test_other_arguments_are_refused_and_another_caller_has_a_key_of_its_own(
    place: FamilyGateway,
) -> None:
    client = place.client()
    assert once(client, "mine", id="mine").text == "mine"
    assert once(client, "mine", id="mine, changed").code == "idempotency_conflict"
    assert once_now(client, "mine", id="mine, changed").code == "idempotency_conflict"
    other = once(place.client(OTHER), "mine", id="theirs")
    assert (other.text, was_replayed(other)) == ("theirs", False)
    assert once(client, "k" * 256, id="long").code == "invalid"


def test_a_session_is_told_the_outcome_of_a_call_made_without_one(place: FamilyGateway) -> None:
    client = place.client(replica=1)
    assert once_now(place.client(), "session", id="session").text == "session"
    sid = start_session(client)
    body = calling("echo__wait", 1, id="session", seconds=0)
    body["params"]["_meta"] = {IDEMPOTENCY: "session"}
    again = client.post(body, Mcp_Session_Id=sid)
    assert was_replayed(again)
    assert arrived(place, "session") == 1


def test_a_servers_own_error_is_told_again_as_it_was(place: FamilyGateway) -> None:
    answers = [once(place.client(), "fault", "echo__fault", id="fault") for _ in range(2)]
    assert [answer.error["code"] for answer in answers] == [-32050, -32050]
    assert arrived(place, "fault") == 1


def test_explicit_execution_takes_the_key_as_a_header(place: FamilyGateway) -> None:
    function = {"name": "echo__wait", "arguments": json.dumps({"id": "header", "seconds": 0})}
    suggestion = {"id": "call_1", "function": function}

    def execute(body: Any) -> Answer:
        endpoint = urljoin(place.client().endpoint, "/v1/mcp/tools/execute")
        return Client(endpoint, place.client().key).post(body, Idempotency_Key="header")

    assert [execute(suggestion).json["content"] for _ in range(2)] == ["header", "header"]
    assert arrived(place, "header") == 1
    several = {"tool_calls": [suggestion, {**suggestion, "id": "call_2"}]}
    for _ in range(2):
        parsed = execute(several).json["messages"]
        assert [message["content"] for message in parsed] == ["header", "header"]
    assert arrived(place, "header") == 3, "each of several has a key of its own"


def test_a_repetition_is_an_event(place: FamilyGateway) -> None:
    client = place.client()
    once(client, "event", id="event")
    once(client, "event", id="event")
    sql = (
        "SELECT outer.call_id AS first FROM events AS outer JOIN events AS again "
        "ON JSONExtractString(again.detail, 'first') = outer.call_id "
        "WHERE again.event = 'call.replayed' AND outer.event = 'call.completed' "
        "AND again.key = 'root'"
    )
    assert place.cluster.eventual_rows(sql)


def test_a_call_outlives_its_client_and_every_service_on_its_way_but_the_last(
    place: FamilyGateway,
) -> None:
    with sent(place.client(), "left", id="left", seconds=4):
        until_blocking(lambda: arrived(place, "left"), "the call reaches the server")
        for service in ("ingress", "policy"):  # where the services are one, only the client leaves
            for process in place.cluster.processes.get(service, [])[:1]:
                process.kill()

    def told() -> Answer | None:
        answer = once_now(place.client(replica=1), "left", id="left", seconds=4)
        lost = answer.code == "outcome_unknown" and not of_the_first(answer)
        return None if lost or answer.code == "call_under_way" else answer

    assert was_replayed(until_blocking(told, "the outcome"))
    assert arrived(place, "left") == 1


@contextmanager
def sent(client: Client, key: str, **arguments: Any) -> Iterator[None]:
    """A call whose client leaves, without an answer, when this is left."""
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


def test_a_call_whose_executor_was_killed_is_said_to_be_unknown_and_not_made_again(
    place: FamilyGateway,
) -> None:
    cluster = place.cluster
    name = "ingress+policy+executor" if cluster.fused else "executor"
    replica = 0 if cluster.fused else 1  # the other ingress is gone
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(once, place.client(replica=replica), "dead", id="dead", seconds=7)
        until_blocking(lambda: arrived(place, "dead"), "the call reaches the server")
        for process in cluster.processes[name]:
            process.kill()
        if cluster.fused:
            cluster.forget_port(0)
        cluster.run(name).wait_ready()
        assert lost.exception() is not None or lost.result().code == "outcome_unknown"
    client = place.client(replica=replica)

    def told() -> Answer | None:
        answer = once(client, "dead", id="dead", seconds=7)
        return None if answer.code in ("call_under_way", "unknown_tool") else answer

    unknown = until_blocking(told, "it is known to be unknown", UNTIL_UNKNOWN)
    assert unknown.code == "outcome_unknown"
    assert "new key" in unknown.error["message"]
    assert arrived(place, "dead") == 1
    alive = until_blocking(
        lambda: _ended(once(client, "alive", id="alive")), "the server is back", 60
    )
    assert alive.text == "alive"


def _ended(answer: Answer) -> Answer | None:
    return None if answer.code else answer
