"""Replay of recorded calls against proposed rules, without I/O."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, Rule
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.model_calls import is_model_method
from toolbus_common.privacy.content_policy import CUT
from toolbus_common.privacy.key_store import ERASED
from toolbus_common.privacy.redaction import STRUCK
from toolbus_common.rules import Asker, Case, Rulebook, Slice, Verdict, labels_of

Outcome = Literal["same", "refused", "asked", "allowed", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("same", "refused", "asked", "allowed", "unknown")
MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call recorded by audit.

    Attributes:
        rule: The rule that denied the call or required an approval; empty if it was allowed.
        request: Whether the call required an approval.
        arguments: The arguments as JSON; None if audit does not have them completely.

    """

    call_id: str
    at: float
    case: Case
    rule: str = ""
    request: bool = False
    arguments: bytes | None = None


@dataclass(slots=True)
class Report:
    """Number of calls by outcome under the proposed rules: in total, by key and by tool."""

    total: Counter[str] = field(default_factory=Counter)
    by_key: dict[str, Counter[str]] = field(default_factory=dict)
    by_tool: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def count(self, call: Recorded, outcome: Outcome, verdict: Verdict) -> None:
        """Count the outcome of one call."""
        key, tool = call.case.asker.key, full_name(call.case.server, call.case.tool)
        self.total[outcome] += 1
        self.by_key.setdefault(key, Counter())[outcome] += 1
        self.by_tool.setdefault(tool, Counter())[outcome] += 1
        shown = self.examples.setdefault(outcome, [])
        if outcome != "same" and len(shown) < MAX_EXAMPLES:
            rule = verdict.denied_by or verdict.approve_by or call.rule
            example = {"call_id": call.call_id, "at": call.at, "key": key, "tool": tool}
            shown.append(example | {"rule": rule, "reason": verdict.reason})

    @property
    def as_data(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return {
            "calls": self.total.total(),
            **{outcome: self.total[outcome] for outcome in OUTCOMES},
            "by_key": {key: dict(counted) for key, counted in sorted(self.by_key.items())},
            "by_tool": {tool: dict(counted) for tool, counted in sorted(self.by_tool.items())},
            "examples": {outcome: shown for outcome, shown in self.examples.items() if shown},
        }


class Replay:
    """Replay of calls against proposed rules; shadow rules are enforced too."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        firm = {name: rule.model_copy(update={"shadow": False}) for name, rule in rules.items()}
        self._book = Rulebook(firm)
        self._slices: dict[Case, Slice] = {}
        self.report = Report()

    def add(self, call: Recorded) -> None:
        """Decide one call by the proposed rules and add the outcome to the report."""
        part = self._slices.get(call.case)
        if part is None:
            part = self._slices[call.case] = self._book.slice(call.case)
        if is_model_method(call.case.method) and part.reads_model:
            self.report.count(call, "unknown", part.verdict)  # events do not record the sizes
            return
        if part.reads_run or self._book.reads_flow_labels:
            self.report.count(call, "unknown", part.verdict)  # events record neither
            return
        verdict = part.decide(call.arguments, call.at)
        self.report.count(call, self._outcome(call, part, verdict), verdict)

    def _outcome(self, call: Recorded, part: Slice, verdict: Verdict) -> Outcome:
        if call.rule and call.rule not in self._book.names:
            return "same"  # another rule still denies the call
        if call.arguments is None and part.reads_arguments and not verdict.denied_by:
            return "unknown"
        if verdict.denied_by:
            return "same" if call.rule and not call.request else "refused"
        if verdict.approve_by:
            return "same" if call.request else "asked"
        return "allowed" if call.rule else "same"


def recorded(row: Mapping[str, Any], declared: Configuration) -> Recorded:
    """Convert an audit row to a call; the tool's labels are taken from `declared`."""
    customer, arguments = str(row["customer"]), str(row["arguments"])
    asker = Asker(
        key=str(row["key"]),
        team=str(row["team"]),
        user=str(row["user"]),
        customer=""
        if customer == DEFAULT_CUSTOMER and customer not in declared.customers
        else customer,
        environment=str(row["environment"]),
    )
    server, tool = str(row["server"]), str(row["tool"])
    labels = labels_of(full_name(server, tool), declared)
    cost, family = int(row["charge"]), str(row["family"])
    return Recorded(
        call_id=str(row["call_id"]),
        at=float(row["seconds"]),
        case=Case(asker, str(row["method"]), server, tool, labels, cost, family),
        rule=str(row["rule"]),
        request=row["code"] == "approval_required" or row["event"] == "approval.requested",
        arguments=_readable(str(row["method"]), arguments),
    )


def _readable(method: str, arguments: str) -> bytes | None:
    """Return the arguments as rules read them; None if they are not recorded as a whole."""
    if is_model_method(method):
        return b"{}"
    return arguments.encode() if _whole(arguments) else None


def _whole(arguments: str) -> bool:
    """Return whether the arguments are complete: not truncated, redacted or erased."""
    return bool(arguments) and not (
        arguments.endswith(CUT) or STRUCK in arguments or arguments == ERASED
    )
