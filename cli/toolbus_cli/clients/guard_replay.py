"""Replay of a guard on recorded content: what it would have done, never the content itself."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from toolbus_cli.clients.guard_samples import Laboratory
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Guard
from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts import TOOLS_CALL
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.contracts.model_calls import MODEL_METHODS, is_model_method, model_name
from toolbus_common.guards.attachment import phases_of
from toolbus_common.privacy.content_policy import CUT
from toolbus_common.privacy.key_store import ERASED

MOST_EXAMPLES = 5
_METHODS = ", ".join(f"'{method}'" for method in (TOOLS_CALL, *sorted(MODEL_METHODS)))
# The recorded content of calls, in the order of the stream, after the position `seq`, `line`.
CONTENTS = f"""
SELECT stream_seq, line, call_id, key, server, tool, method, event,
    JSONExtractString(detail, if(event = 'call.completed', 'result', 'arguments')) AS content
FROM events
WHERE at >= {{since:DateTime}} AND event IN ('call.allowed', 'call.denied', 'call.completed')
    AND method IN ({_METHODS}) AND (stream_seq, line) > ({{seq:UInt64}}, {{line:Int32}})
ORDER BY stream_seq, line
"""  # noqa: S608 - only constants are inserted


def start(since: datetime) -> dict[str, str]:
    """Return the parameters of the first page of `CONTENTS`."""
    return {"since": f"{since:%Y-%m-%d %H:%M:%S}", "seq": "0", "line": "-1"}


@dataclass(slots=True)
class GuardReplay:
    """Replay of one guard; `name` is its name in `laboratory`.

    `kept` counts checked contents, and `missing` those that audit does not have completely.
    """

    name: str
    laboratory: Laboratory
    kept: int = 0
    missing: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    tools: dict[str, Counter[str]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    async def add(self, row: Mapping[str, Any]) -> None:
        """Check the content of one row of `CONTENTS`, if the guard checks its phase."""
        method = str(row["method"])
        phase = phases_of(method)[1 if row["event"] == "call.completed" else 0]
        if phase not in self.laboratory.known(self.name).on:
            return
        content = _whole(str(row["content"]))
        if content is None:
            self.missing += 1
            return
        self.kept += 1
        self._count(row, phase, await self.laboratory.check(self.name, phase, content))

    def _count(self, row: Mapping[str, Any], phase: Phase, check: GuardCheck) -> None:
        joined = model_name if is_model_method(str(row["method"])) else full_name
        tool = joined(str(row["server"]), str(row["tool"]))
        self.verdicts[check.verdict] += 1
        self.rules.update(check.findings)
        self.tools.setdefault(tool, Counter())[check.verdict] += 1
        if check.verdict != "passed" and len(self.examples) < MOST_EXAMPLES:
            self.examples.append(
                {
                    "call_id": row["call_id"], "key": row["key"], "tool": tool, "phase": phase,
                    "verdict": check.verdict, "findings": [*check.findings], "error": check.error,
                }
            )  # fmt: skip

    @property
    def as_data(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return {
            "guard": self.name,
            "checked": self.kept,
            "not_recorded": self.missing,
            "verdicts": dict(self.verdicts),
            "rules": dict(self.rules.most_common()),
            "by_tool": {tool: dict(each) for tool, each in sorted(self.tools.items())},
            "examples": self.examples,
        }


def observing(guard: Guard) -> Guard:
    """Return the guard as it is replayed: it observes, so nothing is stored for a restoration."""
    return guard.model_copy(update={"mode": "observe", "restore": ()})


def _whole(content: str) -> bytes | None:
    """Return recorded content; None if it is missing, truncated or erased."""
    if not content or content.endswith(CUT) or content == ERASED:
        return None
    try:
        msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return content.encode()
