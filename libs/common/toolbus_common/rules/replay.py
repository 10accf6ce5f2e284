"""Replay of recorded calls against proposed rules, without I/O."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, Rule
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.model_calls import is_model_method
from toolbus_common.privacy.content_policy import CUT
from toolbus_common.privacy.key_store import ERASED
from toolbus_common.privacy.redaction import STRUCK
from toolbus_common.rules.decision import SILENT, Verdict
from toolbus_common.rules.policy_set import Rulebook, Slice
from toolbus_common.rules.request import Asker, Case, labels_of

Outcome = Literal["same", "refused", "approval", "allowed", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("same", "refused", "approval", "allowed", "unknown")
MAX_EXAMPLES = 5
# Inputs of rules that events do not record, or not of every call.
ARGUMENTS, SIZES, FLOW = "arguments", "sizes of model requests", "what the run had read"
CALLS = (
    "SELECT stream_seq, line, toUnixTimestamp64Micro(at) / 1e6 AS seconds, call_id, customer, "
    "team, user, environment, key, server, tool, method, family, charge, code, rule, "
    "JSONExtractString(detail, 'arguments') AS arguments, event FROM events "
    # A call denied with approval_required also has an approval.requested event, which is omitted.
    "WHERE at > now() - INTERVAL {seconds} SECOND AND (event = 'call.allowed' "
    "OR event = 'call.denied' AND code IN ('rule_denied', 'approval_required') "
    "OR event = 'approval.requested' AND call_id NOT IN (SELECT call_id FROM events "
    "WHERE at > now() - INTERVAL {seconds} SECOND AND event = 'call.denied' "
    "AND code = 'approval_required')) "
)


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

    @property
    def decision(self) -> str:
        """What the rules decided at the time: `allowed`, `denied` or `approval`."""
        return "approval" if self.request else "denied" if self.rule else "allowed"


@dataclass(slots=True)
class Report:
    """Number of calls by outcome under the proposed rules: in total, by key and by tool.

    `missing` counts the unknown calls by what is not recorded. `most` limits the examples.
    """

    total: Counter[str] = field(default_factory=Counter)
    by_key: dict[str, Counter[str]] = field(default_factory=dict)
    by_tool: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    most: int = MAX_EXAMPLES

    def count_unknown(self, call: Recorded, missing: str) -> None:
        """Count a call whose outcome depends on something that is not recorded."""
        self.missing[missing] += 1
        self.count(call, "unknown", SILENT)

    def count(self, call: Recorded, outcome: Outcome, verdict: Verdict) -> None:
        """Count the outcome of one call."""
        key, tool = call.case.asker.key, full_name(call.case.server, call.case.tool)
        self.total[outcome] += 1
        self.by_key.setdefault(key, Counter())[outcome] += 1
        self.by_tool.setdefault(tool, Counter())[outcome] += 1
        shown = self.examples.setdefault(outcome, [])
        if outcome != "same" and len(shown) < self.most:
            rule = verdict.denied_by or verdict.approve_by or call.rule
            example = {"call_id": call.call_id, "at": call.at, "key": key, "tool": tool}
            reason = {"rule": rule, "reason": verdict.reason, "recorded": call.decision}
            shown.append(example | reason)

    @property
    def as_data(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return {
            "calls": self.total.total(),
            **{outcome: self.total[outcome] for outcome in OUTCOMES},
            "missing": dict(self.missing),
            "by_key": {key: dict(counted) for key, counted in sorted(self.by_key.items())},
            "by_tool": {tool: dict(counted) for tool, counted in sorted(self.by_tool.items())},
            "examples": {outcome: shown for outcome, shown in self.examples.items() if shown},
        }


class Replay:
    """Replay of calls against proposed rules; proposed shadow rules are enforced too.

    `others` are the rules that stay as they are, and `removed` the names of rules that do not
    stay. A call that was allowed is decided by the proposed rules. A call that a proposed or
    removed rule rejected is decided by all rules, because another may reject it too.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        others: Mapping[str, Rule] | None = None,
        removed: Collection[str] = (),
        examples: int = MAX_EXAMPLES,
    ) -> None:
        firm = {name: rule.model_copy(update={"shadow": False}) for name, rule in rules.items()}
        self._changed = {*rules, *removed}
        self._proposed = Rulebook(firm)
        self._all = Rulebook({**(others or {}), **firm})
        self._slices: dict[tuple[bool, Case], Slice] = {}
        self.report = Report(most=examples)

    def add(self, call: Recorded) -> None:
        """Decide one call by the proposed rules and add the outcome to the report."""
        if call.rule and call.rule not in self._changed:
            self.report.count(call, "same", SILENT)  # another rule still denies the call
            return
        book, case = self._all if call.rule else self._proposed, (bool(call.rule), call.case)
        part = self._slices.get(case)
        if part is None:
            part = self._slices[case] = book.slice(call.case)
        if is_model_method(call.case.method) and part.reads_model:
            self.report.count_unknown(call, SIZES)
            return
        if part.reads_run or book.reads_flow_labels:
            self.report.count_unknown(call, FLOW)
            return
        verdict = part.decide(call.arguments, call.at)
        if call.arguments is None and part.reads_arguments and not verdict.denied_by:
            self.report.count_unknown(call, ARGUMENTS)
            return
        self.report.count(call, self._outcome(call, verdict), verdict)

    def _outcome(self, call: Recorded, verdict: Verdict) -> Outcome:
        if verdict.denied_by:
            return "same" if call.rule and not call.request else "refused"
        if verdict.approve_by:
            return "same" if call.request else "approval"
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
