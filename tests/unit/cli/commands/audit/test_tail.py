"""Lines of `toolbus audit tail`."""

from typing import Any

import pytest

from toolbus_cli.commands.audit.query import _show


def row(**given: Any) -> dict[str, Any]:
    """Return a row of the audit store. `given` overrides its columns."""
    return {
        "at": "2026-11-21 07:00:00.000000", "event": "call.completed", "key": "bot",
        "server": "docs", "tool": "search", "method": "tools/call", "code": "", "reason": "",
        "charge": 0, "latency_us": 0, "input_tokens": 0, "output_tokens": 0, **given,
    }  # fmt: skip


def test_a_model_request_is_shown_with_its_model_tokens_cost_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    used = {
        "event": "model.used", "server": "claude", "tool": "haiku", "method": "models/chat",
        "charge": 1500, "latency_us": 12_300, "input_tokens": 900, "output_tokens": 100,
    }  # fmt: skip
    _show([row(**used)], as_json=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("bot           claude/haiku  $0.0015  12.3 ms  900 tokens in, 100 out")


def test_a_call_of_a_tool_is_shown_without_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    _show([row(charge=2000)], as_json=False)
    assert capsys.readouterr().out.rstrip().endswith("docs__search  $0.002")
