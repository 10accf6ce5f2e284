"""What processes say, prefixed with who says it, and without secrets."""

import io
import json

import pytest

from toolbus_cli.launcher.log_multiplexer import LogPrinter


def written(form: str = "text", level: str = "info") -> tuple[LogPrinter, io.StringIO]:
    out = io.StringIO()
    return LogPrinter(form, level, out), out


def line(**fields: object) -> str:
    return json.dumps(
        {"at": "now", "level": "info", "service": "audit", "event": "heard", **fields}
    )


def test_a_services_event_is_prefixed_and_its_fields_follow() -> None:
    journal, out = written()
    journal.service("audit", line(rows=3))
    assert out.getvalue() == "audit      │ heard rows=3\n"


def test_a_traceback_stands_below_its_event() -> None:
    journal, out = written()
    journal.service("audit", line(exception="Traceback\n  File x"))
    assert out.getvalue().splitlines()[1:] == [
        "audit      │   Traceback",
        "audit      │     File x",
    ]


def test_what_a_crash_printed_is_passed_on_as_it_is() -> None:
    journal, out = written()
    journal.service("audit", "Segmentation fault")
    journal.service("audit", "")
    journal.service("audit", "[1]")
    assert out.getvalue().splitlines() == ["audit      │ Segmentation fault", "audit      │ [1]"]


def test_less_than_the_asked_level_is_left_out() -> None:
    journal, out = written(level="warning")
    journal.service("audit", line())
    journal.service("audit", line(level="error"))
    assert out.getvalue() == "audit      │ heard\n"


def test_for_a_program_every_line_is_json() -> None:
    journal, out = written("json")
    journal.service("audit", line())
    journal.service("audit", "Segmentation fault")
    journal.note("draining")
    services = [json.loads(each)["service"] for each in out.getvalue().splitlines()]
    assert services == ["audit", "audit", "toolbus"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_is_struck_out(form: str) -> None:
    journal, out = written(form)
    journal.service("audit", "opened redis://:hunter2secret@127.0.0.1 for tbk_bot_abcdefgh")
    assert "hunter2" not in out.getvalue()
    assert "abcdefgh" not in out.getvalue()


def test_an_engine_is_heard_only_when_something_is_wrong() -> None:
    journal, out = written()
    journal.engine("nats", "[1] [INF] Server is ready")
    journal.engine("nats", "[1] [ERR] JetStream out of space")
    journal.engine("valkey", "1:M # WARNING Memory overcommit must be enabled!")
    assert out.getvalue() == "nats       │ [1] [ERR] JetStream out of space\n"
