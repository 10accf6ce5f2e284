"""All rules, parsed once, and their decision about a call.

A decision has three steps, each with fewer policies. First, the engine evaluates the conditions
that depend only on principal and resource, once for each such *case*. Then this package finds the
remaining conditions that are certainly false, without the engine. Finally, the engine evaluates all
others. A policy whose evaluation fails counts as a policy that forbids, so an error never allows a
call.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cedarpy import AuthzResult, Decision, Entities, PolicySet, is_authorized

from toolbus_common.config import Rule
from toolbus_common.rules.arguments import UnreadableError, readable
from toolbus_common.rules.decision import SILENT, Verdict
from toolbus_common.rules.expression_reads import (
    ARGUMENTS,
    MODEL,
    RUN,
    WHOLE,
    arguments_read,
    context_read,
    entities_named,
    is_settled,
    reads_cost,
    reads_entities,
    reads_flow_labels,
    reads_run,
)
from toolbus_common.rules.fast_path import Context, plainly_not
from toolbus_common.rules.parser import (
    SCOPE,
    Expr,
    Policy,
    RuleError,
    conjuncts,
    forbidding,
    policies,
    policy_set,
)
from toolbus_common.rules.request import NO_ENTITIES, Asker, Case, entities_of

MAX_GROUPS = 4096
NO_CASE = Case(Asker(""), "", "", "")
_NAMED = re.compile(r"policy `(\d+)`")
# The engine's error messages can contain an argument. Messages of these forms do not.
_SAFE_ERRORS = re.compile(
    r"type error: expected [a-z ,()]+, got [a-z ]+|record does not have the attribute `\w+`"
)
_RECORDS = " (rules read null, fractions and numbers beyond 64 bits as records)"
_ANY = {name: {"op": "All"} for name in SCOPE}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that forbids the call, or whose evaluation failed with `error`."""

    rule: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Remainder:
    """The conditions of one policy that depend on the call."""

    rule: int
    conditions: list[Expr]


@dataclass(frozen=True, slots=True)
class Group:
    """Policies that are evaluated together. All of them fail if the arguments are unreadable."""

    remainders: dict[int, _Remainder]
    policies: PolicySet
    arguments: frozenset[str] | None
    context: frozenset[str]
    entities: bool
    plain: tuple[Any, ...]

    @property
    def reads_arguments(self) -> bool:
        """Whether the group cannot be evaluated without the arguments."""
        return self.arguments is WHOLE or bool(self.arguments)


@dataclass(slots=True)
class Slice:
    """The rules that can apply to the calls of one case."""

    book: "Rulebook"
    case: Case
    settled: tuple[Finding, ...]
    groups: tuple[Group, ...]
    verdict: Verdict = SILENT
    _entities: Entities | None = field(default=None)

    def decide(
        self,
        arguments: bytes | None,
        now: float,
        model: Context | None = None,
        run: Context | None = None,
    ) -> Verdict:
        """Return the verdict on a call at the time `now` (seconds since the epoch).

        If `arguments` is None, only rules that do not read arguments are evaluated. `model` is the
        attribute `model` of the context; None for calls that are not model requests. `run` is the
        attribute `run`; without it, a rule that reads what the run has read denies the call.
        """
        found: list[Finding] = []
        for group in self.groups:
            if arguments is not None or not group.reads_arguments:
                found += self._evaluated(group, arguments or b"{}", now, model, run)
        if not found:
            return self.verdict
        return replace(self.book.combined((*self.settled, *found)), reads=self.verdict.reads)

    @property
    def reads_arguments(self) -> bool:
        """Whether the verdict can depend on the arguments."""
        return any(group.reads_arguments for group in self.groups)

    @property
    def reads_model(self) -> bool:
        """Whether the verdict can depend on the attribute `model` of the context."""
        return any(not group.context.isdisjoint((MODEL, "")) for group in self.groups)

    @property
    def reads_run(self) -> bool:
        """Whether the verdict can depend on what the run has read."""
        return any(not group.context.isdisjoint((RUN, "")) for group in self.groups)

    def _evaluated(
        self,
        group: Group,
        arguments: bytes,
        now: float,
        model: Context | None,
        run: Context | None,
    ) -> list[Finding]:
        try:
            context = self._context(group, arguments, now)
        except UnreadableError as error:
            return [Finding(each.rule, str(error)) for each in group.remainders.values()]
        if model is not None:
            context = {**context, MODEL: model}
        if run is not None and not group.context.isdisjoint((RUN, "")):
            context = {**context, RUN: run}
        if all(is_no(context) for is_no in group.plain):
            return []
        request = {**self.case.request, "context": json.dumps(context)}
        entities = self._known() if group.entities else NO_ENTITIES
        return _findings(
            is_authorized(request, group.policies, entities),
            {number: each.rule for number, each in group.remainders.items()},
        )

    def _context(self, group: Group, arguments: bytes, now: float) -> Context:
        context: dict[str, Any] = self.case.settled
        if group.reads_arguments:
            context[ARGUMENTS] = readable(arguments, group.arguments)
        if not group.context.isdisjoint(("time", "")):
            context["time"] = moment(now)
        return context

    def _known(self) -> Entities:
        if self._entities is None:
            self._entities = entities_of(self.case)
        return self._entities


class Rulebook:
    """The compiled rules. A rule that cannot be compiled denies every call."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.names = tuple(rules)
        self._rules = tuple(rules.values())
        self._broken: list[Finding] = []
        self._leading: dict[int, Policy] = {}
        self._remainders: dict[int, _Remainder] = {}
        for rule, declared in enumerate(self._rules):
            self._take(rule, declared)
        self._settling = policy_set(self._leading)
        written = [*self._leading.values(), *(r.conditions for r in self._remainders.values())]
        # Without a rule that names a key, all keys with the same hierarchy have the same decisions.
        self.names_keys = any(kind == "Key" for kind, _ in entities_named(written))
        self.reads_cost = reads_cost(written)
        self.reads_run = reads_run(written)
        self.reads_flow_labels = reads_flow_labels(written)
        self._groups: dict[tuple[int, ...], Group] = {}
        self._silent = Slice(self, NO_CASE, (), ())  # shared by all cases without rules

    def slice(self, case: Case) -> Slice:
        """Return the rules that can apply to this case.

        The engine evaluates the case's conditions.
        """
        request = {**case.request, "context": json.dumps(case.settled)}
        owners = {number: number for number in self._leading}
        result = is_authorized(request, self._settling, entities_of(case))
        settled, open_policies = list(self._broken), []
        for found in _findings(result, owners):
            remainder = self._remainders[found.rule]
            if found.error or not remainder.conditions:
                settled.append(replace(found, rule=remainder.rule))
            else:
                open_policies.append(found.rule)
        if not settled and not open_policies:
            return self._silent
        groups = self._grouped(open_policies)
        verdict = self.combined(settled)
        reads = self._read_by(groups)
        if reads != frozenset():
            verdict = replace(verdict, reads=None if reads is WHOLE else tuple(sorted(reads)))
        return Slice(self, case, tuple(settled), groups, verdict)

    def combined(self, findings: Iterable[Finding]) -> Verdict:
        """Return the verdict for these findings.

        A denial takes precedence, then an evaluation error, then a required approval.
        """
        ordered = sorted(findings, key=lambda each: (each.rule, bool(each.error)))
        shadow = dict.fromkeys(self._shadow(each) for each in ordered if self._is_shadow(each.rule))
        firm = [each for each in ordered if not self._is_shadow(each.rule)]
        denying = [
            each for each in firm if not each.error and self._rules[each.rule].effect == "deny"
        ]
        failed = [each for each in firm if each.error]
        for found in (*denying, *failed):
            name = self.names[found.rule]
            return Verdict(name, "", tuple(shadow), self._reason(found))
        for found in firm:
            return Verdict("", self.names[found.rule], tuple(shadow), self._reason(found))
        return Verdict(shadow=tuple(shadow)) if shadow else SILENT

    def _take(self, rule: int, declared: Rule) -> None:
        try:
            parsed = policies(declared.cedar)
        except RuleError as error:
            self._broken.append(Finding(rule, f"its text {error}"))
            return
        for policy in parsed:
            number, conditions = len(self._leading), conjuncts(policy)
            known = next(
                (at for at, each in enumerate(conditions) if not is_settled(each)), len(conditions)
            )
            self._leading[number] = forbidding(policy, conditions[:known])
            self._remainders[number] = _Remainder(rule, conditions[known:])

    def _grouped(self, numbers: Iterable[int]) -> tuple[Group, ...]:
        """Return groups of policies that can fail separately.

        Shadow rules are separate from other rules, and readers of arguments from other policies.
        """
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for number in sorted(numbers):
            remainder = self._remainders[number]
            reads = arguments_read(remainder.conditions) != frozenset()
            kinds.setdefault((self._is_shadow(remainder.rule), reads), []).append(number)
        return tuple(self._group(tuple(each)) for each in kinds.values())

    def _group(self, numbers: tuple[int, ...]) -> Group:
        group = self._groups.get(numbers)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self._groups.clear()
            remainders = {number: self._remainders[number] for number in numbers}
            group = self._groups[numbers] = _group_of(remainders)
        return group

    def _read_by(self, groups: Iterable[Group]) -> frozenset[str] | None:
        """Return the names of the arguments that enforced rules read; `WHOLE` for all arguments.

        Shadow rules are ignored.
        """
        read: frozenset[str] = frozenset()
        for group in groups:
            if any(not self._is_shadow(each.rule) for each in group.remainders.values()):
                if group.arguments is WHOLE:
                    return WHOLE
                read |= group.arguments
        return read

    def _is_shadow(self, rule: int) -> bool:
        return self._rules[rule].shadow

    def _shadow(self, found: Finding) -> str:
        return self.names[found.rule] + (":error" if found.error else "")

    def _reason(self, found: Finding) -> str:
        name, declared = self.names[found.rule], self._rules[found.rule]
        if found.error:
            return (
                f"The rule '{name}' cannot be evaluated for this call, so the call is denied: "
                f"{found.error}. Change the call, or ask an operator to fix the rule."
            )
        effect = "denies this call" if declared.effect == "deny" else "requires approval"
        fix = declared.reason or "change the call, or ask an operator."
        return f"The rule '{name}' {effect}: {fix}"


def moment(now: float) -> dict[str, int]:
    """Return a time in the form that rules read: in UTC, with 1 as the weekday of Monday."""
    second = int(now)
    days = second // 86_400
    return {"epoch": second, "hour": second % 86_400 // 3600, "weekday": (days + 3) % 7 + 1}


def _group_of(remainders: dict[int, _Remainder]) -> Group:
    conditions = {number: each.conditions for number, each in remainders.items()}
    whole = list(conditions.values())
    return Group(
        remainders=remainders,
        policies=policy_set({n: forbidding(_ANY, each) for n, each in conditions.items()}),
        arguments=arguments_read(whole),
        context=context_read(whole),
        entities=reads_entities(whole),
        plain=tuple(map(plainly_not, conditions.values())),
    )


def _findings(result: AuthzResult, owners: dict[int, int]) -> list[Finding]:
    """Return the engine's findings, each for the owner of its policy.

    An error without a policy counts for every owner.
    """
    found = [Finding(owners[int(each)]) for each in result.diagnostics.reasons]
    for complaint in result.diagnostics.errors:
        named = _NAMED.search(complaint)
        if named is None:
            return [Finding(owner, _error(complaint)) for owner in owners.values()]
        found.append(Finding(owners[int(named[1])], _error(complaint)))
    if result.decision is Decision.NoDecision and not found:
        return [Finding(owner, _error("")) for owner in owners.values()]
    return found


def _error(complaint: str) -> str:
    safe = _SAFE_ERRORS.search(complaint)
    if safe is None:
        return "its conditions cannot be evaluated for these arguments"
    return safe[0] + (_RECORDS if safe[0].endswith("got record") else "")
