"""Errors of model requests: statuses, bodies and headers in the form of each API."""

import json
from typing import Any

import pytest

from toolbus_common import errors
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES
from toolbus_common.errors import (
    BudgetExceededError,
    CallInProgressError,
    InsufficientScopeError,
    ModelRefusedError,
    OutcomeUnknownError,
    OverloadedError,
    RateExceededError,
    RuleDeniedError,
    ToolbusError,
    UnauthorizedError,
    UnknownModelError,
    UpstreamTimeoutError,
)
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import rejected
from toolbus_ingress.models_api.errors import (
    Dialect,
    error_event,
    failure,
    plain,
    rejection,
    status_of,
)
from toolbus_ingress.models_api.request_reader import InvalidBodyError
from toolbus_ingress.rest import problems

RESOURCE = ProtectedResource(ConfigView(), None, DPoPVerifier(""))  # type: ignore[arg-type]
SCOPE: dict[str, Any] = {"path": "/v1/messages", "headers": []}
both = pytest.mark.parametrize("dialect", Dialect)
EVERY_ERROR = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, ToolbusError)
]


def answered(error: ToolbusError, dialect: Dialect = Dialect.OPENAI) -> Response:
    return failure(error, dialect, SCOPE, RESOURCE)


def body_of(response: Response) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response.body)
    return body


def headers_of(response: Response) -> dict[bytes, bytes]:
    headers = dict(response.headers)
    assert len(headers) == len(response.headers), "a header is repeated"
    return headers


@both
@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_has_the_form_of_its_api(error: type[ToolbusError], dialect: Dialect) -> None:
    response = answered(error("It failed. Retry."), dialect)
    body = body_of(response)
    assert 400 <= response.status <= 599
    if dialect is Dialect.ANTHROPIC:
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["code"]
    assert body["error"]["type"].endswith(("_error", "_quota", "_large"))
    assert body["error"]["message"].startswith("It failed. Retry.")
    assert headers_of(response)[b"x-toolbus-error"] == error.code.encode()
    assert b"content-type" not in headers_of(response)  # the application adds application/json


@pytest.mark.parametrize("error", [each for each in EVERY_ERROR if each is not ModelRefusedError])
def test_statuses_are_those_of_the_rest_apis(error: type[ToolbusError]) -> None:
    assert status_of(error("No.")) == problems.status_of(error("No."))


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_sdks_repeat_only_what_is_retryable(error: type[ToolbusError]) -> None:
    response = answered(error("No."))
    repeated = response.status in (408, 409, 429) or response.status >= 500
    stopped = headers_of(response).get(b"x-should-retry") == b"false"
    assert stopped == (repeated and not error.retryable)


@pytest.mark.parametrize(
    ("error", "status", "retried"),
    [
        (BudgetExceededError("No."), 402, False),
        (RuleDeniedError("No."), 403, False),
        (UnknownModelError("No."), 404, False),
        (InvalidBodyError("No."), 400, False),
        (RateExceededError("No."), 429, True),
        (CallInProgressError("No."), 409, True),
        (OverloadedError("No."), 503, True),
        (UpstreamTimeoutError("No."), 504, False),
        (OutcomeUnknownError("No."), 502, False),
        (ModelRefusedError("No.", status=429), 429, True),
        (ModelRefusedError("No.", status=529), 529, True),
        (ModelRefusedError("No.", status=503), 503, True),
        (ModelRefusedError("No.", status=400), 400, False),
        (ModelRefusedError("No.", status=404), 404, False),
        (ModelRefusedError("No.", status=401), 502, False),
        (ModelRefusedError("No.", status=402), 502, False),
        (ModelRefusedError("No.", status=403), 502, False),
        (ModelRefusedError("No.", status=200), 502, False),
        (ModelRefusedError("No.", status=99999), 502, False),
        (ModelRefusedError("No.", status="x"), 502, False),
        (ModelRefusedError("No."), 502, False),
    ],
)  # fmt: skip
def test_the_status_decides_whether_sdks_retry(
    error: ToolbusError, status: int, *, retried: bool
) -> None:
    response = answered(error)
    repeated = response.status in (408, 409, 429) or response.status >= 500
    assert response.status == status
    assert (repeated and b"x-should-retry" not in headers_of(response)) == retried


@both
def test_a_providers_error_keeps_its_message_and_type(dialect: Dialect) -> None:
    refused = ModelRefusedError("Too long.", status=400, type="context_length_error")
    error = body_of(answered(refused, dialect))["error"]
    assert (error["message"], error["type"]) == ("Too long.", "context_length_error")


@both
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_rejected_key_of_the_gateway_is_not_the_clients_fault(
    status: int, dialect: Dialect
) -> None:
    refused = ModelRefusedError("Bad key sk-****abcd.", status=status, type="authentication_error")
    error = body_of(answered(refused, dialect))["error"]
    assert error["type"] != "authentication_error"
    assert "the credential of the gateway, not yours" in error["message"]
    assert "abcd" not in error["message"], "a provider shows parts of the key"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateExceededError("No.", retry_after=2.1), b"3"),
        (ModelRefusedError("No.", status=429, retry_after=17), b"17"),
        (ModelRefusedError("No.", status=429, retry_after=0), b"1"),
        (OverloadedError("No."), b"1"),
        (OverloadedError("No.", retry_after=9), b"9"),
        (RateExceededError("No."), None),
        (ModelRefusedError("No.", status=429, retry_after=-1), None),
        (ModelRefusedError("No.", status=429, retry_after=10**12), None),
        (ModelRefusedError("No.", status=429, retry_after="soon\r\nx: y"), None),
        (ModelRefusedError("No.", status=429, retry_after=float("inf")), None),
        (ModelRefusedError("No.", status=429, retry_after=float("nan")), None),
    ],
)
def test_the_pause_is_sent_in_whole_seconds(error: ToolbusError, seconds: bytes | None) -> None:
    assert headers_of(answered(error)).get(b"retry-after") == seconds


def test_a_missing_credential_gets_a_challenge() -> None:
    response = answered(UnauthorizedError("No credential."), Dialect.ANTHROPIC)
    assert (response.status, response.rejected) == (401, "unauthorized")
    assert headers_of(response)[b"www-authenticate"].startswith(b"Bearer")
    assert "x-api-key" in body_of(response)["error"]["message"]
    scoped = answered(InsufficientScopeError("More.", scope="tools:docs"))
    assert b'scope="tools:docs"' in headers_of(scoped)[b"www-authenticate"]


def test_openai_clients_find_the_codes_that_they_know() -> None:
    unknown = body_of(answered(UnknownModelError("No.")))["error"]
    assert (unknown["code"], unknown["param"]) == ("model_not_found", "model")
    assert body_of(answered(UnauthorizedError("No.")))["error"]["code"] == "invalid_api_key"
    assert body_of(answered(BudgetExceededError("No.")))["error"]["code"] == "insufficient_quota"
    wrong = body_of(answered(InvalidBodyError("No.", "max_tokens")))["error"]
    assert (wrong["code"], wrong["param"]) == ("invalid", "max_tokens")


@both
def test_a_rejected_request_has_the_form_of_its_api(dialect: Dialect) -> None:
    response = rejection(rejected("size", 413, "Too large. Send less."), dialect)
    assert response.status == 413
    assert body_of(response)["error"]["message"] == "Too large. Send less."
    assert plain(405, "Use GET.", dialect, (b"allow", b"GET")).headers == ((b"allow", b"GET"),)


def test_an_error_after_the_start_of_a_stream_is_an_event() -> None:
    error = OutcomeUnknownError("Lost.")
    chat = error_event(error, CHAT, Dialect.OPENAI)
    assert chat.startswith(b"data: {")
    assert json.loads(chat.removeprefix(b"data: "))["error"]["message"] == "Lost."
    messages = error_event(error, MESSAGES, Dialect.ANTHROPIC)
    head, _, data = messages.partition(b"\ndata: ")
    assert (head, json.loads(data)["error"]["type"]) == (b"event: error", "api_error")
    responses = error_event(error, RESPONSES, Dialect.OPENAI)
    head, _, data = responses.partition(b"\ndata: ")
    event = json.loads(data)
    assert (head, event["type"], event["message"]) == (b"event: error", "error", "Lost.")
    assert (event["error"]["code"], event["sequence_number"]) == ("outcome_unknown", 0)
    for each in (chat, messages, responses):
        assert each.endswith(b"}\n\n")
        assert each.count(b"\n\n") == 1
