"""A guard replayed on recorded content: what it would have done, without the content itself."""

import json
from typing import Any

import pytest

from toolbus_cli.clients.guard_replay import GuardReplay, observing
from toolbus_cli.clients.guard_samples import Laboratory
from toolbus_common.config import Guard
from toolbus_common.privacy.content_policy import CUT
from toolbus_common.privacy.key_store import ERASED

TOKEN = "ghp_" + "x7Gk2mQp9RtVw3ZbN5cYs8HdLf4JaE6uT1oi"
SECRETS = Guard(kind="secrets", on=("arguments", "results"), action="redact", restore=("git__*",))
ROW: dict[str, Any] = {
    "call_id": "c1", "key": "bot", "server": "docs", "tool": "search", "method": "tools/call",
    "event": "call.allowed", "content": "{}",
}  # fmt: skip


async def replayed(*rows: dict[str, Any], guard: Guard = SECRETS) -> dict[str, Any]:
    report = GuardReplay("new", Laboratory({"new": observing(guard)}))
    for row in rows:
        await report.add({**ROW, **row})
    return report.as_data


async def test_content_that_the_guard_would_redact_is_counted_and_shown_by_its_call() -> None:
    found = await replayed(
        {"content": json.dumps({"token": TOKEN}), "call_id": "c7"},
        {"event": "call.completed", "content": json.dumps([TOKEN]), "call_id": "c8"},
        {},
    )
    assert found["verdicts"] == {"would_redact": 2, "passed": 1}
    assert found["rules"] == {"github-pat": 2}
    assert found["by_tool"] == {"docs__search": {"would_redact": 2, "passed": 1}}
    assert [(each["call_id"], each["phase"]) for each in found["examples"]] == [
        ("c7", "arguments"),
        ("c8", "results"),
    ]
    assert TOKEN not in json.dumps(found)


@pytest.mark.parametrize("content", ["", ERASED, '{"a": "x' + CUT, "{"])
async def test_content_that_is_not_recorded_as_a_whole_is_counted_apart(content: str) -> None:
    found = await replayed({"content": content})
    assert (found["checked"], found["not_recorded"], found["verdicts"]) == (0, 1, {})


async def test_other_phases_than_those_of_the_guard_are_left_out() -> None:
    guard = SECRETS.model_copy(update={"on": ("results",)})
    found = await replayed({}, {"method": "models/chat"}, guard=guard)
    assert (found["checked"], found["not_recorded"]) == (0, 0)
