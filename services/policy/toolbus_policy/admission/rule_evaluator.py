"""Evaluate the configured rules for a call; rule slices are cached per configuration."""

from typing import Any

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, Rule
from toolbus_common.contracts import CallRequested
from toolbus_common.flow.labels import Labels
from toolbus_common.rules import Asker, Case, Rulebook, Slice, Verdict, labels_of
from toolbus_common.rules.fast_path import Context
from toolbus_policy.admission.plan_cache import PrincipalCache
from toolbus_policy.ledger.admitted_call import ModelSize

MAX_ENTRIES = 50_000


class RuleEvaluator:
    """The compiled rules of one configuration."""

    def __init__(self, book: Rulebook, declared: Configuration) -> None:
        self.declared = declared
        self._book = book
        # Keys that the rules do not distinguish share one number.
        self._numbers = PrincipalCache[str, int](MAX_ENTRIES)
        self._askers: dict[Asker, int] = {}
        self._slices: dict[tuple[Any, ...], Slice] = {}

    @property
    def reads_flow(self) -> bool:
        """Whether any rule reads what runs have read."""
        return self._book.reads_run

    @property
    def reads_labels(self) -> bool:
        """Whether any rule reads what a tool reads or where it writes."""
        return self._book.reads_flow_labels

    def verdict(
        self,
        call: CallRequested,
        key: Principal,
        charge: int,
        now: float,
        size: ModelSize | None = None,
        run: Context | None = None,
        labels: Labels | None = None,
    ) -> Verdict:
        """Return the verdict of the rules on a call that costs `charge` (micro-dollars).

        `size` is set for model requests. Their bodies are not decoded: rules see no arguments.
        `run` is `context.run`; None if no rule reads it. `labels` are those of the tool; None if no
        rule reads them.
        """
        try:
            number = self._numbers.get(key.key, key)
        except KeyError:
            found = self._askers.setdefault(self._asker(key), len(self._askers))
            number = self._numbers.put(key.key, key, found)
        case: tuple[Any, ...] = (number, call.server, call.method, call.tool, call.family)
        if labels is not None:
            case = (*case, labels)
        # Requests to one model differ in their cost, calls of one tool do not.
        varies = size is not None and self._book.reads_cost
        part = None if varies else self._slices.get(case)
        if part is None:
            part = self._book.slice(self._case(call, key, charge, labels))
            if not varies:
                if len(self._slices) >= MAX_ENTRIES:
                    self._slices.clear()
                self._slices[case] = part
        if size is not None:
            return part.decide(b"{}", now, model_context(size), run)
        return part.decide(call.arguments, now, run=run)

    def _asker(self, key: Principal) -> Asker:
        name, own = key.key if self._book.names_keys else "", key.own
        return Asker(name, own.team, own.user, key.level_names.get("customer", ""), key.environment)

    def _case(self, call: CallRequested, key: Principal, charge: int, flow: Labels | None) -> Case:
        labels = labels_of(full_name(call.server, call.tool), self.declared)
        reads, writes = (flow.reads, flow.writes) if flow is not None else ((), "")
        return Case(
            self._asker(key),
            call.method,
            call.server,
            call.tool,
            labels,
            charge,
            call.family.value,
            reads,
            writes,
        )


def model_context(size: ModelSize) -> dict[str, Any]:
    """Return `context.model` of a model request."""
    return {
        "alias": size.alias,
        "input": size.input,
        "output": size.output,
        "tools": size.tools,
        "stream": size.stream,
        "region": size.region,
        "labels": list(size.labels),
        "sampled_by": size.sampled_by,
    }


class RuleCompiler:
    """Compiler of rules. It compiles them again only when they change."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._book = Rulebook({})
        self._newest: RuleEvaluator | None = None

    def of(self, snapshot: ConfigSnapshot) -> RuleEvaluator | None:
        """Return the evaluator of a snapshot's rules; None if the snapshot has no rules."""
        rules = snapshot.configuration.rules
        if rules is not self._rules and list(rules.items()) != list(self._rules.items()):
            self._book = Rulebook(rules)
        self._rules = rules
        if not rules:
            self._newest = None
        elif self._newest is None or self._newest.declared is not snapshot.configuration:
            self._newest = RuleEvaluator(self._book, snapshot.configuration)
        return self._newest
