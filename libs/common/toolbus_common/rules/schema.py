"""Validation of a rule's text against a Cedar schema, before the rule applies.

Cedar's schema has no "any" type, and every tool has different arguments. Therefore the schema for a
policy is generated from the arguments that the policy reads. Each argument is optional, and its
type is the type that its use implies. Reading an argument without a test with `has`, or using it as
two types, is an error.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from cedarpy import Schema, policies_from_json_str, validate_policies

from toolbus_common.contracts import FOLLOW
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.model_calls import MODEL_METHODS
from toolbus_common.rules.argument_types import (
    LONG,
    TEXT,
    TRUTH,
    Type,
    arguments_of,
    record_of,
    set_of,
)
from toolbus_common.rules.expression_reads import MODEL, RUN, entities_named
from toolbus_common.rules.parser import (
    NOT_CEDAR,
    Policy,
    RuleError,
    conjuncts,
    forbidding,
    policies,
    policies_json,
)
from toolbus_common.rules.statements import line_of, statements

METHODS = (
    AGENT_RUN, "completion/complete", "prompts/get", "resources/read", "resources/subscribe",
    "tasks/cancel", FOLLOW, "tasks/get", "tasks/result", "tasks/update", "tools/call",
)  # fmt: skip
_KEY = {"team": TEXT, "user": TEXT, "customer": TEXT, "environment": TEXT}
_TOOL = {
    "server": TEXT, "name": TEXT, "labels": set_of(TEXT), "price": LONG, "reads": set_of(TEXT),
    "writes": TEXT,
}  # fmt: skip
_ENTITIES = {
    "Key": {"memberOfTypes": ["Team", "User", "Customer"], "shape": record_of(_KEY)},
    "Tool": {"memberOfTypes": ["Server"], "shape": record_of(_TOOL)},
    **{kind: {} for kind in ("Team", "User", "Customer", "Server")},
}
_MODEL = record_of(
    {
        "alias": TEXT, "input": LONG, "output": LONG, "tools": LONG, "stream": TRUTH,
        "sampled_by": TEXT, "region": TEXT, "labels": set_of(TEXT),
    }
)  # fmt: skip
_RUN = record_of({"has_read_private": TRUTH, "has_read_untrusted": TRUTH})
_TIME = record_of({"epoch": LONG, "hour": LONG, "weekday": LONG})
MOST_PROBLEMS = 100  # that are reported of one rule
_NOISE = re.compile(r'^for policy `[^`]*`, | in context for Action::"[^"]*"')
_UNSAFE = re.compile(r"unable to guarantee safety of access to optional attribute `([^`]*)`")


def problems(text: str) -> list[str]:
    """Return the errors in a rule's text, each with its line if there are several lines.

    Each message contains the fix. Of very many errors, only the first are returned.
    """
    mistakes = (each for line, policy in statements(text) for each in _mistakes(line, policy))
    found = [*islice(mistakes, MOST_PROBLEMS)]
    if not found:
        try:
            policies(text)
        except RuleError as error:
            return [str(error)]
    several = "\n" in text.strip()
    return [f"line {line}: {message}" if several else message for line, message in found]


def named(text: str) -> Iterator[tuple[str, str]]:
    """Yield each entity in a rule's text, as kind and name; nothing if the text is not a rule."""
    with suppress(RuleError):
        yield from dict.fromkeys(entities_named(policies(text)))


def schema_for(policy: Policy) -> Schema:
    """Return the schema for a policy, with the arguments that the policy reads."""
    arguments = arguments_of(conjuncts(policy))
    context = {"arguments": arguments, "cost": LONG, "family": TEXT, "time": _TIME, RUN: _RUN}
    absent = {**_MODEL, "required": False}
    actions = {
        **{method: _applies({**context, MODEL: absent}) for method in METHODS},
        **{method: _applies({**context, MODEL: _MODEL}) for method in sorted(MODEL_METHODS)},
    }
    return Schema.from_json_str(json.dumps({"": {"entityTypes": _ENTITIES, "actions": actions}}))


def _applies(context: dict[str, Type]) -> dict[str, Any]:
    shape = {"principalTypes": ["Key"], "resourceTypes": ["Tool"], "context": record_of(context)}
    return {"appliesTo": shape}


def _mistakes(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Yield the errors of one policy, which begins on a line."""
    try:
        parsed = policies(text)
    except RuleError as error:
        yield line + line_of(str(error).removeprefix(NOT_CEDAR), text), str(error)
        return
    for policy in parsed:
        for message in _problems(policy):
            yield line, message


def _problems(policy: Policy) -> Iterable[str]:
    whole = forbidding(policy, conjuncts(policy))
    text = policies_from_json_str(policies_json({0: whole}))
    result = validate_policies(text, schema_for(policy))
    return dict.fromkeys(_message(each.error) for each in result.errors)


def _message(complaint: str) -> str:
    message = _NOISE.sub("", complaint.splitlines()[0])
    unsafe = _UNSAFE.match(message)
    if unsafe is None:
        return message
    above, _, name = unsafe[1].rpartition(".")
    test = f"context.{above} has {name}" if above else f"context has {name}"
    return f"reads {unsafe[1]}, which some calls do not have; test it first: {test} && …"
