"""The content of calls in events: the recording level, and redaction."""

import json
from hashlib import sha256

import pytest

from harness.builders.calls import admitted_call
from toolbus_common.access.principal import principal_of
from toolbus_common.calls.event_fields import result_fields
from toolbus_common.config import Configuration, Content, Key
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import UpstreamRefusedError, UpstreamTimeoutError
from toolbus_common.privacy import redaction
from toolbus_common.privacy.content_policy import CUT, LARGEST, recorded, strictest
from toolbus_common.privacy.redaction import STRUCK, redacted
from toolbus_executor.calls.outcome_events import failed

CARD = "4111 1111 1111 1111"


def admitted(result_content: str) -> CallAdmitted:
    return admitted_call(server="s", result_content=result_content, user="ann")


def test_full_content_is_recorded_or_cut_and_marked() -> None:
    assert recorded(b'{"a": "\xc3\xa9"}', "full") == '{"a": "é"}'
    long = recorded(b'{"a": "' + "é".encode() * LARGEST + b'"}', "full")
    assert long.endswith(CUT)
    assert len(long.encode()) <= LARGEST + len(CUT.encode())


def test_at_digest_level_no_content_is_recorded() -> None:
    assert recorded(b'{"a": 1}', "digest") == recorded(b'{"a": 1}', "") == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("digest", "The server returned JSON-RPC error -32050."),
        ("redacted", f"No card {STRUCK} here"),
        ("full", f"No card {CARD} here"),
    ],
)
def test_a_servers_error_message_is_recorded_like_a_result(content: str, reason: str) -> None:
    call = admitted(content)
    error = UpstreamRefusedError(f"No card {CARD} here", upstream_code=-32050)
    assert failed(call, error, 0.1, sent=True).reason == reason
    ours = UpstreamTimeoutError("It took too long.")
    assert failed(call, ours, 0.1, sent=True).reason == ours.reason


@pytest.mark.parametrize(
    ("configured", "counts"),
    [
        ((), "digest"),
        ((None, "full"), "full"),
        (("full", "redacted", None), "redacted"),
        (("full", "redacted", "digest"), "digest"),
    ],
)
def test_the_strictest_level_applies(
    configured: tuple[Content | None, ...], counts: Content
) -> None:
    assert strictest(configured) == counts


def test_levels_environments_and_servers_can_restrict_recording() -> None:
    declared = Configuration.model_validate(
        {
            "servers": {
                "docs": {"url": "http://docs.example", "content": "redacted"},
                "bank": {"url": "http://bank.example", "result_content": "digest"},
                "plain": {"url": "http://plain.example"},
            },
            "environments": {"prod": {"result_content": "redacted"}},
            "keys": {
                "bot": {"environment": "prod", "content": "full", "result_content": "full"},
                "dev": {"content": "full", "result_content": "full"},
            },
        }
    )
    bot = principal_of("bot", declared.keys["bot"], declared)
    dev = principal_of("dev", declared.keys["dev"], declared)
    assert bot.recording("docs") == ("redacted", "redacted")
    assert bot.recording("bank") == ("full", "digest")
    assert bot.recording("plain") == ("full", "redacted")
    assert dev.recording("plain") == ("full", "full")
    assert principal_of("quiet", Key(), declared).recording("plain") == ("digest", "digest")


def test_a_result_is_recorded_by_digest_and_as_far_as_configured() -> None:
    call = admitted("redacted")
    body = b'{"token": "abc", "n": 1}'
    stored = result_fields(call, body)
    assert stored["result_digest"] == sha256(body).hexdigest()
    assert (stored["user"], json.loads(stored["result"])) == ("ann", {"token": STRUCK, "n": 1})
    silent = call.model_copy(update={"result_content": "digest", "user": ""})
    assert result_fields(silent, body) == {"result_digest": stored["result_digest"]}


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer 0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "sk-proj-abcdefghijklmnop1234",
        "xoxb-1234567890-abcdef",
        "tbk_bot_abcdefghijklmnopqrstuv",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "ann.lee+shop@mail.example.org",
        CARD,
        "DE89 3704 0044 0532 0130 00",
        "+47 22 33 44 55",
        "078-05-1120",
        "192.168.17.4",
    ],
)
def test_a_secret_is_redacted_anywhere_in_the_content(secret: str) -> None:
    stored = redacted(json.dumps({"note": f"see {secret} there", "list": [secret]}).encode())
    assert secret not in json.loads(stored)["note"]
    assert json.loads(stored) == {"note": f"see {STRUCK} there", "list": [STRUCK]}


def test_a_password_in_a_url_is_redacted_and_the_url_stays() -> None:
    stored = json.loads(redacted(b'{"url": "postgres://ann:hunter2@db.example/x"}'))
    assert stored == {"url": f"postgres://{STRUCK}@db.example/x"}


def test_a_value_with_a_secret_like_name_is_redacted() -> None:
    stored = redacted(b'{"Password": "hunter2", "api_key": 17, "client-secret": {"a": [1]}}')
    assert set(json.loads(stored).values()) == {STRUCK}


def test_a_card_number_is_redacted_as_text_and_number() -> None:
    assert json.loads(redacted(b'{"paid": 4111111111111111}')) == {"paid": STRUCK}


@pytest.mark.parametrize(
    "harmless",
    [
        {"city": "Oslo", "count": 12, "on": True, "none": None},
        {"order": "4111 1111 1111 1112"},  # no card: its check digit is wrong
        {"at": "2026-11-21T20:15:00Z", "version": "1.12.3", "price": 12.5},
        {"max_tokens": 400, "next_page_token": ""},
        {"id": "5f1c09ab-17de-4c5b-9c2e-0a1b2c3d4e5f"},
    ],
)
def test_harmless_values_are_unchanged(harmless: dict[str, object]) -> None:
    assert json.loads(redacted(json.dumps(harmless).encode())) == harmless


@pytest.mark.parametrize(
    "text", [b'{"a": ', b"\xff", b"[" * 5000, b'"' + b"a" * redaction.LARGEST + b'"']
)
def test_nothing_of_malformed_json_is_stored(text: bytes) -> None:
    assert recorded(text, "redacted") == CUT


@pytest.mark.parametrize(
    "piece", ["a.", "a@", "1 ", "A1", "+1 ", "-----BEGIN ", "://a:", "eyJ", "%"]
)
def test_a_hostile_text_is_scanned_in_linear_time(piece: str) -> None:
    # A backtracking pattern would not finish this.
    text = json.dumps({"x": piece * (16_000 // len(piece))}).encode()
    assert redacted(text)


def test_values_nested_too_deeply_are_redacted() -> None:
    deep = b"[" * 200 + b"1" + b"]" * 200
    assert STRUCK in redacted(deep)
