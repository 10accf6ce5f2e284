"""No secret is logged, in whichever field it is."""

import json
import logging
import re
import sys
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.nats.permissions import new_seed
from toolbus_common.observability.logging import JsonFormatter, TextFormatter, redacted
from toolbus_common.observability.tracing import bind
from toolbus_common.settings import Settings

CANARIES = [
    "tbk_bot_Zm9vYmFyYmF6cXV4",
    "Bearer abc.def-ghi_jkl",
    "bearer  abcdefgh12345",
    "password=hunter22",
    "https://x/y?token=abcdef&z=1",
    "redis://user:pa55word@host:6379",
    "redis://:pa55word@host:6379",
    new_seed(),
]
LEAKS = ["Zm9vYmFyYmF6cXV4", "abc.def", "abcdefgh", "hunter22", "abcdef&", "pa55word"]


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "levelno": logging.INFO})
    vars(made).update(fields)
    return made


def leaks(text: str) -> list[str]:
    return [leak for leak in [*LEAKS, CANARIES[-1]] if leak in text]


@pytest.mark.parametrize("formatter", [JsonFormatter("policy"), TextFormatter()])
@pytest.mark.parametrize("canary", CANARIES, ids=range(len(CANARIES)))
def test_a_secret_is_redacted_in_message_fields_and_traceback(
    formatter: logging.Formatter, canary: str
) -> None:
    try:
        int(f"not a number: {canary}")
    except ValueError:
        traceback = sys.exc_info()
    line = formatter.format(
        record(f"message {canary}", field=canary, nested={"headers": [canary]}, exc_info=traceback)
    )
    assert leaks(line) == []
    assert "[redacted]" in line


def test_a_json_line_is_one_line_of_json_naming_service_and_event() -> None:
    line = JsonFormatter("policy").format(record("call.denied", call_id="c1", many="a\nb"))
    line_fields = json.loads(line)
    assert "\n" not in line
    assert (line_fields["service"], line_fields["event"], line_fields["call_id"]) == (
        "policy",
        "call.denied",
        "c1",
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line_fields["at"])


@given(canary=st.sampled_from(CANARIES), text=st.text(max_size=40))
def test_a_json_line_stays_json_after_redaction(canary: str, text: str) -> None:
    line = JsonFormatter("r").format(record("event", field=f"{text} {canary} {text}"))
    assert leaks(line) == []
    json.loads(line)


def test_ordinary_words_are_not_redacted() -> None:
    harmless = "The bearer of mail came; git__git_log took 3 ms at http://127.0.0.1:8080/mcp"
    assert redacted(harmless) == harmless


def test_a_line_of_a_call_has_its_trace_id_and_others_none() -> None:
    formatter = JsonFormatter("policy")
    assert "trace_id" not in json.loads(formatter.format(record("service.ready")))

    def in_a_call() -> str:
        bind("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
        return formatter.format(record("call.internal_error"))

    line_fields = json.loads(copy_context().run(in_a_call))
    assert line_fields["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line_fields["span_id"] == "00f067aa0ba902b7"


def test_the_format_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLBUS_LOG_FORMAT", "text")
    assert Settings().log_format == "text"
