"""The combined log of `toolbus up`: prefixes, levels, forms, redaction."""

import io
import json

import pytest

from toolbus_cli.launcher.log_multiplexer import LogPrinter


def written(form: str = "text", level: str = "info") -> tuple[LogPrinter, io.StringIO]:
    out = io.StringIO()
    return LogPrinter(form, level, out), out


def line(**fields: object) -> str:
    return json.dumps(
        {"at": "now", "level": "info", "service": "audit", "event": "started", **fields}
    )


def test_a_services_event_is_printed_with_prefix_and_fields() -> None:
    printer, out = written()
    printer.service("audit", line(rows=3))
    assert out.getvalue() == "audit      │ started rows=3\n"


def test_a_traceback_is_printed_below_its_event() -> None:
    printer, out = written()
    printer.service("audit", line(exception="Traceback\n  File x"))
    assert out.getvalue().splitlines()[1:] == [
        "audit      │   Traceback",
        "audit      │     File x",
    ]


def test_output_that_is_no_log_event_is_printed_unchanged() -> None:
    printer, out = written()
    printer.service("audit", "Segmentation fault")
    printer.service("audit", "")
    printer.service("audit", "[1]")
    assert out.getvalue().splitlines() == ["audit      │ Segmentation fault", "audit      │ [1]"]


def test_events_below_the_requested_level_are_omitted() -> None:
    printer, out = written(level="warning")
    printer.service("audit", line())
    printer.service("audit", line(level="error"))
    assert out.getvalue() == "audit      │ started\n"


def test_in_json_form_every_line_is_json() -> None:
    printer, out = written("json")
    printer.service("audit", line())
    printer.service("audit", "Segmentation fault")
    printer.note("draining")
    services = [json.loads(each)["service"] for each in out.getvalue().splitlines()]
    assert services == ["audit", "audit", "toolbus"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_redacted(form: str) -> None:
    printer, out = written(form)
    printer.service("audit", "opened redis://:hunter2secret@127.0.0.1 for tbk_bot_abcdefgh")
    assert "hunter2" not in out.getvalue()
    assert "abcdefgh" not in out.getvalue()


def test_only_errors_of_an_engine_are_printed() -> None:
    printer, out = written()
    printer.engine("nats", "[1] [INF] Server is ready")
    printer.engine("nats", "[1] [ERR] JetStream out of space")
    printer.engine("valkey", "1:M # WARNING Memory overcommit must be enabled!")
    assert out.getvalue() == "nats       │ [1] [ERR] JetStream out of space\n"
