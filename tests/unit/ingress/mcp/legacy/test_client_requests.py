"""Requests to clients: only for declared capabilities, and every response is passed on."""

import json
from typing import Any

import pytest

from toolbus_common.contracts import ERROR
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.errors import InvalidError
from toolbus_ingress.mcp.legacy.client_requests import (
    PendingClientRequests,
    client_request,
    input_response,
)
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.sessions.session_store import Session, Sessions

FORM = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object"}}
URL = {"mode": "url", "message": "Sign in", "url": "https://example.org/in"}


def session(declared: Any, version: str = "2025-11-25") -> Session:
    sessions = Sessions(ClaimSealer(b"k" * KEY_BYTES), lambda _message: None)
    return sessions.begin("key_digest", version, declared)


def encoded(method: str, params: Any, declared: Any, version: str = "2025-11-25") -> dict[str, Any]:
    raw = client_request("q1", {"method": method, "params": params}, session(declared, version))
    found: dict[str, Any] = json.loads(raw)
    return found


ABLE = [
    ("elicitation/create", FORM, {"elicitation": {}}),
    ("elicitation/create", FORM, {"elicitation": {"form": {}}}),
    ("elicitation/create", FORM, {"elicitation": {"form": {}, "url": {}}}),
    ("elicitation/create", URL, {"elicitation": {"url": {}}}),
    ("sampling/createMessage", {"messages": []}, {"sampling": {}}),
    ("roots/list", {}, {"roots": {"listChanged": True}}),
]
UNABLE = [
    ("elicitation/create", FORM, {}),
    ("elicitation/create", FORM, {"elicitation": None}),
    ("elicitation/create", FORM, {"elicitation": {"url": {}}}),
    ("elicitation/create", URL, {"elicitation": {}}),
    ("elicitation/create", URL, {"elicitation": {"form": {}}}),
    ("sampling/createMessage", {}, {"elicitation": {}}),
    ("roots/list", {}, {"sampling": {}}),
]


@pytest.mark.parametrize(("method", "params", "declared"), ABLE)
def test_a_client_gets_requests_it_declared(method: str, params: Any, declared: Any) -> None:
    request = encoded(method, params, declared)
    assert (request["jsonrpc"], request["id"], request["method"]) == ("2.0", "q1", method)
    assert request["params"] | params == request["params"], "nothing of it is lost"


@pytest.mark.parametrize(("method", "params", "declared"), UNABLE)
def test_a_client_never_gets_a_request_it_did_not_declare(
    method: str, params: Any, declared: Any
) -> None:
    with pytest.raises(InvalidError, match=r"did not declare|cannot do"):
        encoded(method, params, declared)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "x",
        {},
        {"method": None},
        {"method": ["roots/list"]},
        {"method": "tools/call"},
        {"method": "ping"},
    ],
)
def test_a_request_outside_the_protocol_is_not_forwarded(entry: Any) -> None:
    able = session({"elicitation": {}, "sampling": {}, "roots": {}})
    with pytest.raises(InvalidError, match="cannot forward"):
        client_request("q1", entry, able)


def test_a_client_without_url_elicitation_gets_the_url_in_the_error() -> None:
    with pytest.raises(InvalidError, match=r"https://example\.org/in"):
        encoded("elicitation/create", URL, {"elicitation": {}}, "2025-06-18")


def test_a_url_elicitation_has_its_own_or_the_servers_id() -> None:
    declared: Any = {"elicitation": {"url": {}}}
    assert encoded("elicitation/create", URL, declared)["params"]["elicitationId"] == "q1"
    named = {**URL, "elicitationId": "its own"}
    assert encoded("elicitation/create", named, declared)["params"]["elicitationId"] == "its own"


@pytest.mark.parametrize(
    ("version", "mode"), [("2025-11-25", "form"), ("2025-06-18", None), ("2024-11-05", None)]
)
def test_the_mode_of_a_form_is_sent_if_the_client_knows_modes(
    version: str, mode: str | None
) -> None:
    request = encoded("elicitation/create", FORM, {"elicitation": {}}, version)
    assert request["params"].get("mode") == mode
    assert request["params"]["requestedSchema"] == FORM["requestedSchema"]


def test_the_servers_text_is_not_altered() -> None:
    entry = {"method": "elicitation/create", "params": dict(FORM)}
    client_request("q1", entry, session({"elicitation": {}}, "2025-06-18"))
    assert entry["params"] == FORM


@pytest.mark.parametrize(
    "result",
    [
        {"action": "accept", "content": {"name": "Ada"}},
        {"action": "decline"},
        {"action": "cancel", "x-foreign": 1},
    ],
)
def test_a_response_is_passed_on_unchanged(result: dict[str, Any]) -> None:
    assert input_response({"id": "q1", "result": result}, "elicitation/create") == result


NO_ANSWER = {"code": -32603, "message": "The client's response has no result."}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"error": {"code": -1, "message": "no"}}, {"code": -1, "message": "no"}),
        (
            {"error": {"code": 4, "message": "no", "data": [1]}},
            {"code": 4, "message": "no", "data": [1]},
        ),
        ({"error": {"code": -1, "message": "x" * 5000}}, {"code": -1, "message": "x" * 2000}),
        ({"error": "odd"}, NO_ANSWER),
        ({"error": {"code": "odd"}}, NO_ANSWER),
        ({"result": 5}, NO_ANSWER),
        ({}, NO_ANSWER),
    ],
)
def test_an_error_of_a_client_is_passed_on_with_its_code_and_message(
    message: dict[str, Any], error: dict[str, Any]
) -> None:
    assert input_response(message, "sampling/createMessage") == {"_meta": {ERROR: error}}
    cancelled = {"action": "cancel", "_meta": {ERROR: error}}
    assert input_response(message, "elicitation/create") == cancelled


async def test_a_response_is_accepted_in_its_own_session_only() -> None:
    pending = PendingClientRequests()
    async with pending.open("mine", b"1") as (number, response):
        body = json.dumps({"id": number, "result": {"action": "accept"}}).encode()
        assert not pending.resolve("another", body)
        assert not response.done()
        assert pending.resolve("mine", body)
        assert await response == {"id": number, "result": {"action": "accept"}}
        assert pending.resolve("mine", body), "a second response changes nothing"
    assert not pending.resolve("mine", body), "no request is pending any more"


@pytest.mark.parametrize("request_id", [None, 1, "toolbus-0", [1], {"a": 1}])
async def test_an_unsolicited_response_is_not_accepted(request_id: Any) -> None:
    pending = PendingClientRequests()
    async with pending.open("mine", b"1") as (_, response):
        assert not pending.resolve("mine", json.dumps({"id": request_id}).encode())
        assert not response.done()


async def test_request_ids_are_unique() -> None:
    pending = PendingClientRequests()
    async with pending.open("a", b"1") as (one, _), pending.open("a", b"1") as (other, _):
        assert one != other


async def test_a_cancelled_request_ends_and_others_keep_waiting() -> None:
    pending = PendingClientRequests()
    async with (
        pending.open("a", b"1") as (number, mine),
        pending.open("a", b'"1"') as (_, other),
        pending.open("b", b"1") as (_, foreign),
    ):
        pending.cancel("a", b"1")
        assert await mine is None
        assert not other.done()
        assert not foreign.done()
        pending.cancel("a", b"1")
        assert pending.resolve("a", json.dumps({"id": number, "result": {}}).encode())
        assert mine.result() is None, "an answer that comes too late changes nothing"
