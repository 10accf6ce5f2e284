"""Errors for the caller, from HTTP errors of providers."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.provider_errors import LONGEST_PAUSE, refusal, retry_after
from toolbus_executor.transport.http1 import Head


def error_of(body: Any, status: int = 400, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return refusal("p", Head(status, fields), raw, KnownSecrets(["secret-canary-value"]))


@pytest.mark.parametrize(
    ("body", "reason", "kind"),
    [
        ({"error": {"message": "Too long", "type": "invalid_request_error"}}, "Too long",
         "invalid_request_error"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "Busy",
         "overloaded_error"),
        ({"error": "model 'x' not found"}, "model 'x' not found", None),
        ({"detail": "Not Found"}, "Not Found", None),
        ({"message": "m", "code": "c"}, "m", "c"),
    ],
)  # fmt: skip
def test_the_providers_message_is_the_reason(body: Any, reason: str, kind: str | None) -> None:
    error = error_of(body)
    assert error.reason == reason
    assert error.data == {"status": 400} | ({"type": kind} if kind else {})


@pytest.mark.parametrize("body", [b"", b"<html>", [], {}, {"error": {"message": 5}}, b"[" * 9999])
def test_a_body_without_a_message_is_replaced_by_the_status(body: Any) -> None:
    assert "'p' returned HTTP 418" in error_of(body, 418).reason


def test_secrets_and_control_characters_are_removed_and_the_length_is_limited() -> None:
    error = error_of({"error": {"message": "Key secret-canary-value is bad\x1b[0m" + "x" * 5000}})
    assert "canary" not in error.reason
    assert "\x1b" not in error.reason
    assert len(error.reason) <= 1000


def test_pauses_are_read_in_each_form() -> None:
    assert error_of({}, 429, retry_after="7").data["retry_after"] == 7
    assert error_of({}, 429, retry_after_ms="1500", retry_after="9").data["retry_after"] == 1.5
    at = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    assert error_of({}, 429, retry_after=at).data["retry_after"] == LONGEST_PAUSE
    past = format_datetime(datetime.now(UTC) - timedelta(hours=3), usegmt=True)
    assert "retry_after" not in error_of({}, 429, retry_after=past).data


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_header_is_a_limited_pause(one: bytes, other: bytes) -> None:
    pause = retry_after(Head(429, {b"retry-after": one, b"retry-after-ms": other}))
    assert 0 <= pause <= LONGEST_PAUSE
